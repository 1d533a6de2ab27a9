"""Docstrings, README and the site: what they say, that code runs and links lead somewhere."""

import ast
import doctest
import inspect
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import ndcg_score

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
FUNCTIONS = [name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))]
DOCUMENTED = [
    name for name in sx.__all__ if not isinstance(getattr(sx, name), sx.Noise | sx.Sampler)
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_say_shapes_limits_errors_and_a_source_and_their_example_runs(name):
    public = getattr(sx, name)
    doc = inspect.getdoc(public)
    assert doc
    first = doc.splitlines()[0]
    assert len(first) > 40
    assert first.endswith((".", "}.", "gradient", ")")) or ":" in first
    for section in ["Limits:", "Raises:", "Example:", "Reference:"]:
        assert section in doc, section
    assert re.search(r"\[\.\.\.|\[N|shape", doc), "no shapes"
    assert re.search(r"\b(19|20)\d\d\b", doc.split("Reference:")[1]), "no year"
    for parameter in inspect.signature(public).parameters if name in FUNCTIONS else []:
        assert f"  {parameter}: " in doc, parameter
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert sum(len(test.examples) for test in found) >= 2
    runner = doctest.DocTestRunner()
    for test in found:
        assert runner.run(test).failed == 0


def test_the_readme_is_short_begins_with_code_and_has_three_commands():
    assert len(README.splitlines()) <= 180
    assert any("import softmaxx as sx" in line for line in README.splitlines()[:15])
    for command in [
        "pip install -e '.[examples]' && python examples/digits.py",
        "pip install -e '.[test]' && pytest",
        "pip install -e '.[docs]' && sphinx-build -W docs build/site",
    ]:
        assert f"\n{command}\n" in README


def test_every_public_name_is_on_one_page_of_the_reference_and_mentioned_elsewhere():
    reference = "".join(text for page, text in PAGES.items() if page.startswith("docs/api/"))
    others = "".join(text for page, text in PAGES.items() if not page.startswith("docs/api/"))
    entries = re.findall(r"(?:^\.\. auto\w+::|^```\{py:data\}) softmaxx\.(\w+)$", reference, re.M)
    assert sorted(entries) == sorted(sx.__all__)
    listed = re.findall(r"`sx\.(\w+)`", PAGES["docs/api/index.md"].split("## All names")[1])
    assert sorted(listed) == sorted(sx.__all__)
    for name in sx.__all__:
        assert re.search(rf"\bsx\.{name}\b", others), name


# The code of the pages

PRINTED = {  # what the code of a page prints, without line breaks
    "README.md": "[0. 0. 0. 0.] 1.45 [-0. -0.5 0.5 0. ]",
    "docs/index.md": "0.5 samples",
    "docs/conventions.md": "[[12. 40.] [12. 40.]] 0.167 [14.5 14.5]",
    "docs/faq.md": "1 False 2 True [0. 0.5 0.5] [0. 1. 0.] [1. 1.]",
    "docs/guides/attention.md": "(2, 1, 1) True",
    "docs/guides/devices.md": "",
    "docs/guides/experts.md": "2.0 2.96875 True all the same loss 0.077 right 0.91 ± 0.00 "
    "top_k_mask loss 0.027 right 0.94 ± 0.00 soft_top_k loss 0.014 right 0.94 ± 0.01 "
    "[10. 10. 10. 10. 10. 10.]",
    "docs/guides/keypoints.md": "[31.35 31.41] [12.3 20.7] "
    "[[12.3 20.7] [40.6 33.2] [ 0. 0. ]] [ True True False] 0.0123",
    "docs/guides/latents.md": "[1. 1.] [1. 1.] [1. 1.]",
    "docs/guides/ranking.md": "",
    "docs/guides/sequences.md": "[0.2 0.6 0.2] [1. 0. 1. 0.] [0.68 0.29 0.6 0.29] "
    "[1. 1. 1. 1. 0. 0.]",
    "docs/guides/solvers.md": "True [[1. 0.] [0. 1.]] [[1. 0.3] [0.7 1. ]]",
    "docs/guides/vocabularies.md": "",
}


@cache
def run(page: str) -> tuple[dict, str]:
    """What the code of a page computes, by name, and what it prints. All pages may be run alone."""
    scope, printed = {}, StringIO()
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        redirect_stdout(printed),
    ):
        for block in re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE):
            exec(block, scope)
    return scope, " ".join(printed.getvalue().split())


def test_pages_with_code_are_listed():
    elsewhere = {"docs/coming_from.md", "CONTRIBUTING.md"}  # its own test; a sketch
    with_code = {page for page, text in PAGES.items() if "\n```python\n" in text}
    assert with_code - elsewhere == set(PRINTED)


@pytest.mark.parametrize("page", PRINTED)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page):
    assert run(page)[1] == PRINTED[page]


def test_what_the_code_of_the_guides_computes_is_right():
    keypoints, solvers = run("docs/guides/keypoints.md")[0], run("docs/guides/solvers.md")[0]
    assert np.isfinite(keypoints["steps"]).all()
    np.testing.assert_allclose(keypoints["depth"], 120 / 7.4, rtol=1e-3)
    np.testing.assert_allclose(solvers["expected_length"], 3, rtol=1e-6)
    paths = solvers["paths"].argmax(-solvers["costs"], key=solvers["key"])
    np.testing.assert_allclose(solvers["slope"], solvers["best"] - paths)
    np.testing.assert_allclose(run("docs/guides/devices.md")[0]["means"].sum(), 10, rtol=1e-6)
    shared = run("docs/conventions.md")[0]
    np.testing.assert_allclose(shared["metres"], [[12 * 2 / 47, 40 / 63]] * 2, rtol=1e-6)
    assert np.isfinite(shared["alpha_slope"]).all()
    experts = run("docs/guides/experts.md")[0]
    for slope in ("slope", "per_token"):
        assert np.isfinite(experts[slope]).all()
        assert experts[slope].any()


# Links and figures


def anchors(text: str) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_lead_somewhere(page):
    here = (ROOT / page).parent
    text = re.sub(r"```(?:python|text|sh)\n.*?```", "", PAGES[page], flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"\{download\}`[^`]*<([^>]+)>`", text)
    links += re.findall(r"^`{3}\{(?:image|literalinclude|include)\} (\S+)$", text, re.MULTILINE)
    links += [f"{link}.md" for link in re.findall(r"^:link: (\S+)$", text, re.MULTILINE)]
    links += re.findall(r"(?:src|srcset)=\"(docs/[^\"]+)\"", text)
    for listed in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
        links += [f"{entry}.md" for entry in re.findall(r"^[a-z]\S+$", listed, re.MULTILINE)]
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_every_plot_has_its_script_and_both_of_its_images():
    folder, text = ROOT / "docs" / "gallery", PAGES["docs/gallery.md"]
    scripts = {path.stem for path in folder.glob("*.py")} - {"draw"}
    images = {path.name for path in (folder / "images").glob("*.png")}
    assert images == {f"{name}-{theme}.png" for name in scripts for theme in ("light", "dark")}
    assert set(re.findall(r"literalinclude\} gallery/(\w+)\.py", text)) == scripts
    for name in scripts:
        ast.parse((folder / f"{name}.py").read_text())
        assert f"gallery/images/{name}-light.png" in text


@pytest.mark.slow
def test_the_scripts_of_the_plots_run(tmp_path):
    draw = runpy.run_path(str(ROOT / "docs" / "gallery" / "draw.py"))
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        for name in draw["SCRIPTS"]:
            draw["draw"](name, tmp_path, themes=("light",), dpi=20)


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(ROOT / "docs"), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "searchindex.js").exists()
    for page in tmp_path.rglob("*.html"):
        loads = re.findall(r"<(?:script|link|img|iframe)[^>]*>", page.read_text())
        assert not [tag for tag in loads if re.search(r'(src|href)="(https?:)?//', tag)], page.name
    index = (tmp_path / "index.html").read_text()
    assert "<math" in (tmp_path / "idea.html").read_text()
    for file in (ROOT / "docs").glob("explorer/*"):
        assert (tmp_path / "explorer" / file.name).read_bytes() == file.read_bytes()
    assert 'href="api/readouts.html#softmaxx.local_argmax"' in index


# The recipes of orders and losses


def test_recipes_of_an_order_are_the_metrics_themselves_without_smoothing():
    scope, random = run("docs/guides/ranking.md")[0], np.random.RandomState(0)
    scores, targets = random.randn(2, 30).astype(np.float32)
    relevance = np.asarray(np.round(np.abs(targets), 1))
    residuals = np.array([3.0, -0.1, 0.2, -50.0], np.float32)
    tied, few = np.round(targets), np.round(scores)
    for got, expected in [
        (scope["spearman"](scores, targets, temperature=0.0), spearmanr(scores, targets)[0]),
        (scope["spearman"](few, tied, temperature=0.0), spearmanr(few, tied)[0]),
        (scope["kendall"](scores, targets, sigma=1e-6), kendalltau(scores, targets)[0]),
        (
            scope["ndcg"](scores, relevance, temperature=0.0),
            ndcg_score(relevance[None], scores[None]),
        ),
        (scope["trimmed_squares"](residuals, 2), (0.1**2 + 0.2**2) / 2),
        (scope["conformal_width"](scores, 0.8), np.sort(abs(scores))[25 - 1]),  # ⌈0.8·31⌉ = 25
    ]:
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    for name, *others in [("spearman", targets), ("kendall", targets), ("ndcg", relevance)]:
        slope = jax.grad(scope[name])(scores, *others)
        assert np.isfinite(slope).all()
        assert (slope != 0).mean() > 0.3
        where = np.arange(30) < 20
        pairs = [(np.where(where, x, np.nan), x[:20]) for x in (scores, *others)]
        masked, cut = zip(*pairs, strict=True)
        got = scope[name](*masked, where=where)
        np.testing.assert_allclose(got, scope[name](*cut), rtol=1e-5)
        nothing = jax.value_and_grad(scope[name])(np.zeros(30), 0 * others[0])
        np.testing.assert_allclose(nothing[0], 0, atol=1e-6)
        assert np.isfinite(nothing[1]).all()
    half = jnp.asarray(np.random.RandomState(1).randn(2, 1000), np.float16)
    for name in ("spearman", "ndcg"):
        got, wide = scope[name](*abs(half)), scope[name](*abs(half.astype(np.float32)))
        np.testing.assert_allclose(got, wide, rtol=2e-3)


# The pasted recipes of docs/coming_from.md, both sides of each row

SCORES = jnp.array([0.2, 1.0, 0.9, -0.4], np.float32)


def test_recipe_without_a_shift_is_nan_where_soft_argmax_is_right():
    beta = 1000.0

    def pasted(x):
        return (jnp.arange(4.0, dtype=np.float32) * jnp.exp(beta * x)).sum() / jnp.exp(
            beta * x
        ).sum()

    assert np.isnan(pasted(SCORES))
    assert sx.soft_argmax(SCORES, temperature=1 / beta) == 1
    assert np.isfinite(pasted(0.088 * SCORES / SCORES.max()))  # β·x = 88
    assert np.isnan(pasted(0.089 * SCORES / SCORES.max()))


def test_recipe_times_ten_billion_has_no_gradient():
    def pasted(x):
        return jax.nn.softmax(x * 1e10) @ jnp.arange(4.0, dtype=np.float32)

    assert pasted(SCORES) == 1
    assert not jax.grad(pasted)(SCORES).any()
    assert jax.grad(lambda x: sx.soft_argmax(x, temperature=0.3))(SCORES).all()
    assert jax.jit(jax.grad(lambda x: sx.perturbed_argmax(x, key=jax.random.key(0))))(SCORES).any()


def test_recipe_by_sign_has_no_gradient_and_several_ones():
    def pasted(x):
        return 1 - jnp.sign(x.max() - x)

    tie = jnp.array([0.0, 2.0, 2.0])
    np.testing.assert_array_equal(pasted(tie), [0, 1, 1])
    assert not jax.jacobian(pasted)(SCORES).any()
    np.testing.assert_array_equal(sx.one_hot_argmax(tie), [0, 1, 0])
    assert jax.jacobian(sx.sparsemax)(SCORES).any()


def test_recipe_of_categories_sees_a_wrong_class_that_an_index_loss_does_not():
    between = jnp.array(
        [0.0, 9.0, 0.0, 0.0, 0.0, 9.0, 0.0]
    )  # unsure between 1 and 5; the label is 3
    assert abs(sx.soft_argmax(between) - 3) < 1e-3
    assert optax.softmax_cross_entropy_with_integer_labels(between, 3) > 9
    slope = jax.grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, 3))(between)
    assert jnp.argmin(slope) == 3


# The recipes of the losses. What the guides compute is checked where their code runs.


def test_recipe_of_another_ignore_label_counts_nothing_and_has_no_gradient():
    logits = jnp.asarray(np.random.RandomState(0).randn(2, 3, 4))
    labels = np.array([[1, 255, 3], [255, 0, 255]], np.uint8)
    counted = labels != 255
    for settings in [{"alpha": 1.0}, {}, {"alpha": jnp.asarray(1.3)}, {"label_smoothing": 0.1}]:

        def loss(logits, temperature, settings=settings):
            return sx.entmax_loss(
                logits, labels, where=counted[..., None], temperature=temperature, **settings
            )

        losses, pullback = jax.vjp(loss, logits, 1.0)
        slope, by_temperature = pullback(jnp.ones_like(losses))
        signed = np.where(counted, labels.astype(int), -1)
        np.testing.assert_allclose(losses, sx.entmax_loss(logits, signed, **settings), rtol=1e-12)
        np.testing.assert_array_equal(losses[~counted], 0)
        np.testing.assert_array_equal(slope[~counted], 0)
        assert np.isfinite(slope).all()
        assert np.isfinite(by_temperature)


def test_recipes_of_the_mean_over_rows_that_count_and_of_class_weights_are_those_of_torch():
    """The weighted mean divides by the sum of the weights, as torch.nn.CrossEntropyLoss does."""
    scope = run("docs/guides/vocabularies.md")[0]
    counted, losses = np.asarray(scope["counted"]), np.asarray(scope["losses"], np.float64)
    np.testing.assert_allclose(scope["mean_loss"], losses[counted].mean(), rtol=1e-6)
    weights = np.array([1.0, 2.0, 0.5])[np.asarray(scope["labels"])[counted]]
    expected = (weights * losses[counted]).sum() / weights.sum()
    np.testing.assert_allclose(scope["weighted_loss"], expected, rtol=1e-6)


def test_recipe_of_indices_instead_of_masks():
    scope = run("docs/guides/vocabularies.md")[0]
    mask = np.asarray(sx.top_k_mask(scope["scores"], k=2))
    assert set(np.asarray(scope["best_two"]).tolist()) == set(np.nonzero(mask)[0].tolist())
    np.testing.assert_array_equal(jax.lax.top_k(scope["noisy"], 2)[1], scope["drawn_two"])
    row = jnp.log(jnp.array([0.6, 0.3, 0.1], np.float32))
    keys = jax.random.split(jax.random.key(1), 4000)

    def first(key):
        return jax.lax.top_k(row + jax.random.gumbel(key, (3,), row.dtype, mode="high"), 2)[1][0]

    counts = np.bincount(np.asarray(jax.jit(jax.vmap(first))(keys)), minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.6, 0.3, 0.1], atol=5 * np.sqrt(0.24 / 4000))


def test_recipe_of_bfloat16_networks_casts_before_the_loss():
    assert np.isfinite(run("docs/guides/keypoints.md")[0]["divergence"])
    centre = np.array([20.3, 30.1])
    rows, columns = np.arange(48.0)[:, None], np.arange(64.0)[None]
    scores = -((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 8
    scores = (scores + 0.02 * np.random.RandomState(0).randn(48, 64)).astype(jnp.bfloat16)

    def loss(scores):
        return float(
            sx.kl_to_gaussian(sx.softmax(scores, axis=(0, 1)), centre, sigma=2.0, axis=(0, 1))
        )

    exact = loss(scores.astype(np.float64))
    assert abs(loss(scores) / exact - 1) > 0.2
    assert abs(loss(scores.astype(np.float32)) / exact - 1) < 2e-3
