"""The documentation site: `pip install -e '.[docs]' && sphinx-build -W docs build/site`."""

import shutil
import sys
from pathlib import Path

from docutils import nodes

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import softmaxx  # noqa: E402  (from this checkout)

project = "softmaxx"
author = "The softmaxx authors"
copyright = "The softmaxx authors, Apache 2.0"
version = release = softmaxx.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",  # the last two are in _ext
    "names",
]
exclude_patterns = ["_ext", "_static", "explorer", "gallery/*.py"]
nitpicky = True
# Exceptions are those of Python, and types are described in words.
nitpick_ignore_regex = [("py:exc", ".*"), ("py:class", ".*")]

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]

autodoc_typehints = "none"  # the words of the docstrings say more
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Limits", "Errors", "Reference"]
add_module_names = False
python_display_short_literal_types = True

html_theme = "furo"
html_title = "softmaxx"
html_static_path = ["_static"]
html_css_files = ["softmaxx.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2459a8", "color-brand-content": "#2459a8"},
    "dark_css_variables": {"color-brand-primary": "#8db8f4", "color-brand-content": "#8db8f4"},
}
pygments_style = "friendly"
pygments_dark_style = "nord-darker"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def copy_explorer(app, failure):
    """The explorer is a page of its own, which is copied as it is."""
    if failure is None and app.builder.format == "html" and (HERE / "explorer").exists():
        shutil.copytree(HERE / "explorer", Path(app.outdir) / "explorer", dirs_exist_ok=True)


def scrolling(app, doctree, docname):
    """Each figure in a box of its own, which scrolls on a phone."""
    for image in list(doctree.findall(nodes.image)):
        image.replace_self(nodes.container("", image.deepcopy(), classes=["figure-box"]))


def with_version(app, docname, source):
    """The version in the entry to cite."""
    if docname == "citation":
        source[0] = source[0].replace("VERSION", release)


def setup(app):
    app.connect("source-read", with_version)
    app.connect("doctree-resolved", scrolling)
    app.connect("build-finished", copy_explorer)
