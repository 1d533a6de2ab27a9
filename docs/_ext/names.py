"""The public names: `sx.name` in a page becomes a link to its reference, docstrings become RST.

Docstrings are plain text in which `code` stands in single backquotes. Here the backquotes become
those of RST, and what RST would take for markup elsewhere is escaped.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import softmaxx

CODE = re.compile(r"`([^`]+)`")
CALL = re.compile(r"\bsx\.(\w+)")
MARKUP = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


def rst_of(line: str) -> str:
    """A line of a docstring, with its code as literals and links and its other text escaped."""
    parts = CODE.split(line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = MARKUP.sub(r"\\\1", part)
        elif part in softmaxx.__all__:
            parts[i] = f":py:obj:`~softmaxx.{part}`"
        else:
            parts[i] = f"``{part}``"
    return "".join(parts)


def docstring(app, what, name, obj, options, lines):
    """Before napoleon reads the sections. Code of an example, also continued, stays as it is."""
    joined = "\n".join(lines)
    # Errors that are a sentence, without the name of one, are no field list.
    joined = re.sub(r"^Raises:\n(?= +(?! )(?!\w+Error\b))", "Errors:\n", joined, flags=re.MULTILINE)
    # Code that is broken over two lines is put on one.
    joined = CODE.sub(lambda found: re.sub(r"\s*\n\s*", " ", found[0]), joined)
    example, result = False, []
    for line in joined.split("\n"):
        if re.match(r"\S", line):
            example = False
        example = example or line.lstrip().startswith(">>>")
        if line.strip() == "":
            example = False
        result.append(line if example else rst_of(line))
    lines[:] = result


class Links(SphinxPostTransform):
    """Literals that contain `sx.name` become links to the first such name."""

    default_priority = 5  # before references are resolved

    def run(self):
        for literal in list(self.document.findall(nodes.literal)):
            found = CALL.search(literal.astext())
            inside = isinstance(literal.parent, nodes.reference | addnodes.pending_xref)
            if not found or found[1] not in softmaxx.__all__ or inside:
                continue
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=f"softmaxx.{found[1]}",
                refdoc=self.env.docname,
                refwarn=True,
                refspecific=False,
            )
            literal.replace_self(link)
            link += literal


class TrimmedCode(SphinxPostTransform):
    """Excerpts of files end at their last line of code, not at the blank lines behind it."""

    default_priority = 6

    def run(self):
        for block in list(self.document.findall(nodes.literal_block)):
            block.rawsource = block.astext().rstrip()
            block[:] = [nodes.Text(block.rawsource)]


def setup(app):
    app.connect("autodoc-process-docstring", docstring, priority=100)
    app.add_post_transform(Links)
    app.add_post_transform(TrimmedCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
