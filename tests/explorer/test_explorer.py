"""The explorer: its formulas against the library, and the page in a real browser.

The formulas run in Node, or in the browser where there is no Node. The page needs Chromium and its
driver: `apt-get install chromium chromium-driver`.
"""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
FOLDER = Path(__file__).parent.parent.parent / "docs" / "explorer"
PAGE = (FOLDER / "index.html").as_uri()
NODE = shutil.which("node") or shutil.which("nodejs")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM = CHROMIUM or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "found no Chromium with its ChromeDriver: `apt-get install chromium chromium-driver`"
READOUTS = ["argmax", "soft_argmax", "sparse_argmax", "local_argmax", "expm1_softmax"]


# The formulas


@pytest.fixture(scope="module")
def compute(request):
    """Calls one function of formulas.js for each list of arguments."""
    code = "((name, rows) => rows.map((row) => formulas[name](...row)))"
    if not NODE:
        driver = request.getfixturevalue("browser")
        driver.get(PAGE)
        return partial(driver.execute_script, f"return {code}(...arguments)")
    path = json.dumps(str(FOLDER / "formulas.js"))
    program = (
        f"const formulas = require({path});"
        "const given = JSON.parse(require('fs').readFileSync(0));"
        f"console.log(JSON.stringify({code}(...given)))"
    )

    command = [NODE, "-e", program]

    def in_node(name, rows):
        given = json.dumps([name, list(rows)])
        done = subprocess.run(command, input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return in_node


@jax.jit
def of_library(scores, alpha, k, temperature, cotangent):
    """What the page shows of rows of scores, from the library."""

    def one(scores, alpha, k, temperature, cotangent):
        settings = {"alpha": alpha, "temperature": temperature}
        p, back = jax.vjp(partial(sx.entmax, **settings), scores)
        top, back_top = jax.vjp(partial(sx.soft_top_k, k=k, **settings), scores)
        tau = sx.threshold(scores, **settings)
        return p, back(cotangent)[0], top, back_top(cotangent)[0], tau

    return jax.vmap(one)(scores, alpha, k, temperature, cotangent)


def problems(rows=300, n=7):
    """Scores, α, k, T and cotangents. Many are at a special value, and a fifth have ties."""
    random = np.random.RandomState(0)

    def mixed(special, others):
        return np.where(random.rand(rows) < 0.4, random.choice(special, rows), others)

    scores = np.clip(1.5 * random.randn(rows, n), -3, 3)
    tied = np.flatnonzero(random.rand(rows) < 0.2)
    scores[tied, 1] = scores[tied, 4] = scores[tied].max(-1)
    alpha = mixed([1, 1 + 1e-6, 1.5, 2, 3], random.uniform(1, 3, rows))
    k = mixed(np.arange(n + 1.0), n * random.rand(rows))
    temperature = mixed([0, 0.01, 1], 10 ** random.uniform(-2, 1, rows))
    k = np.where(temperature == 0, np.round(2 * k) / 2, k)  # at T = 0 a small rest of k is lost
    return scores, alpha, k, temperature, random.randn(rows, n)


def test_choices_gradients_and_thresholds_are_those_of_the_library(compute):
    scores, alpha, k, temperature, cotangent = problems()
    settings = [
        {"alpha": a, "k": b, "temperature": t}
        for a, b, t in zip(alpha, k, temperature, strict=True)
    ]
    given = list(zip(scores.tolist(), settings, strict=True))
    p, top, tau = (np.array(compute(name, given)) for name in ["entmax", "softTopK", "threshold"])
    slopes = [
        np.array(compute("gradient", zip(x.tolist(), cotangent.tolist(), settings, strict=True)))
        for x in (p, top)
    ]
    expected = of_library(scores, alpha, k, temperature, cotangent)
    # Where every entry is at 0 or at its cap, rounding decides whether the library's ties are.
    moves = ((top > 0) & (top < 1)).any(-1)
    assert moves.sum() > 150
    assert not slopes[1][~moves].any()
    for got, right, rows in [
        (p, expected[0], ...),
        (slopes[0], expected[1], ...),
        (top, expected[2], ...),
        (slopes[1], expected[3], moves),
        (tau, expected[4], ...),
    ]:
        np.testing.assert_allclose(got[rows], np.asarray(right)[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal((p > 0).sum(-1), (np.asarray(expected[0]) > 0).sum(-1))
    # The lines of the plot: weight 0 at `zero` and below, weight 1 at `cap` and above.
    inside = (temperature > 0) & (k > 0) & (k < 7)
    assert inside.sum() > 150
    lines = compute("solve", given)
    zero = np.array([-np.inf if one["zero"] is None else one["zero"] for one in lines])[:, None]
    cap = np.array([np.inf if one["cap"] is None else one["cap"] for one in lines])[:, None]
    for side, line in [((top > 0) == (scores > zero), zero), ((top == 1) == (scores > cap), cap)]:
        assert (side | (abs(scores - line) < 1e-9))[inside].all()


@pytest.mark.parametrize(
    ("name", "scores", "settings", "expected"),
    [
        ("entmax", [0, 2, 2], {"alpha": 1.5, "temperature": 0}, [0, 0.5, 0.5]),
        ("entmax", [1, 0], {"alpha": 2}, [1, 0]),  # on the boundary: outside
        ("entmax", [-2, 1, 1, 1, 1], {"alpha": 1.5}, [0, 0.25, 0.25, 0.25, 0.25]),
        ("softmax", [1, 1, 1, 1], 0, [0.25, 0.25, 0.25, 0.25]),
        ("softTopK", [3, 1, 0.5, -2], {"k": 2}, [1, 0.75, 0.25, 0]),
        ("softTopK", [1, 2, 2, 0], {"k": 1.5, "temperature": 0}, [0, 0.75, 0.75, 0]),
        (
            "softTopK",
            [1.9, 0.4, 1.6, 1.1],
            {"k": 3, "alpha": 1.5, "temperature": 0.1},
            [1, 0, 1, 1],
        ),
        ("softTopK", [1, 2, 2, 0], {"k": 0}, [0, 0, 0, 0]),
        ("softTopK", [1, 2, 2, 0], {"k": 9}, [1, 1, 1, 1]),
        ("expm1Softmax", [0.1, 0.2], {"background": 0.2}, [0, 0]),
        ("expm1Softmax", [0, 1, 1], {"temperature": 0}, [0, 0.5, 0.5]),
    ],
)
def test_ties_temperature_0_and_boundaries(compute, name, scores, settings, expected):
    got = compute(name, [[scores, settings]])[0]
    np.testing.assert_allclose(got, expected, atol=1e-12)
    for end in (0, 1):
        np.testing.assert_array_equal(np.array(got) == end, np.array(expected) == end)


@partial(jax.jit, static_argnames="window")
def places_of_library(heatmaps, temperature, background, window):
    """Where each readout lands, `[heatmaps, 2]` each."""
    axes = (0, 1)

    def one(heatmap, temperature, background):
        settings = {"axis": axes, "temperature": temperature}
        weights = sx.expm1_softmax(heatmap, background=background, **settings)
        return {
            "argmax": jnp.stack(jnp.unravel_index(heatmap.argmax(), heatmap.shape)),
            "soft_argmax": sx.soft_argmax(heatmap, **settings),
            "sparse_argmax": sx.sparse_argmax(heatmap, **settings),
            "local_argmax": sx.local_argmax(heatmap, window=window, **settings),
            "expm1_softmax": sx.expected_index(weights, axis=axes),
        }

    return jax.vmap(one)(heatmaps, temperature, background)


def test_readouts_of_heatmaps_are_those_of_the_library(compute):
    random, count = np.random.RandomState(1), 40
    centres = random.rand(count, 2) * [19, 23]
    sigmas = random.uniform(1, 4, count)
    peaks = [[c, [20, 24], sigma] for c, sigma in zip(centres.tolist(), sigmas, strict=True)]
    peaks = np.array(compute("gaussian", peaks))
    expected = sx.gaussian_heatmap(centres, shape=(20, 24), sigma=sigmas[:, None])
    np.testing.assert_allclose(peaks.reshape(-1, 20, 24), expected, atol=1e-9)
    level, noise = random.rand(count) / 2, random.choice([0, 0.02, 0.3], count)
    heatmaps = peaks + level[:, None] + noise[:, None] * random.randn(*peaks.shape)
    temperature = np.where(np.arange(count) < 4, 0, 10 ** random.uniform(-2, 1, count))
    background = level + 3 * noise
    settings = [
        {"temperature": t, "background": b, "window": 3}
        for t, b in zip(temperature, background, strict=True)
    ]
    given = zip(heatmaps.tolist(), [24] * count, settings, strict=True)
    got = compute("readouts", given)
    places = places_of_library(heatmaps.reshape(-1, 20, 24), temperature, background, window=3)
    assert set(got[0]) == set(READOUTS)
    for name in READOUTS:
        found = [one[name]["place"] for one in got]
        np.testing.assert_allclose(found, places[name], rtol=1e-5, atol=1e-5)


def test_noise_is_that_of_jax_so_that_the_code_gives_the_numbers_of_the_page(compute):
    for seed in [0, 1, 123456]:
        expected = jax.random.normal(jax.random.key(seed), (4096,), jnp.float32)
        got = compute("normal", [[seed, 4096]])[0]
        np.testing.assert_allclose(got, expected, atol=1e-5)


# The page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in [
        *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ]:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    """The page as a visitor opens it, on a desktop. Its console is empty in the end."""
    visit = Visit(browser)
    visit.open()
    yield visit
    assert browser.get_log("browser") == []


class Visit:
    """What a visitor sees and does."""

    def __init__(self, driver):
        self.driver = driver
        self.find = partial(driver.find_element, "css selector")
        self.all = partial(driver.find_elements, "css selector")

    def open(self, state="", width=1280, height=900, dark=False):
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        touch = {"enabled": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.driver.get(PAGE + state)
        self.drawn()

    def drawn(self):
        """Waits until two frames are drawn."""
        self.driver.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[arguments.length - 1]))"
        )

    def press(self, selector, *keys):
        node = self.find(selector)
        self.driver.execute_script("arguments[0].focus()", node)
        self.driver.switch_to.active_element.send_keys(*keys)
        self.drawn()

    def slide(self, **values):
        """Moves sliders to these values, those that are not shown too."""
        self.driver.execute_script(
            "for (const [name, value] of Object.entries(arguments[0])) {"
            " const slider = document.getElementById(name);"
            " slider.value = value; slider.dispatchEvent(new Event('input')); }",
            values,
        )
        self.drawn()

    def click(self, selector):
        self.find(selector).click()
        self.drawn()

    def pick(self, name, value):
        self.click(f"#{name} option[value='{value}']")

    def text(self, selector):
        return self.find(selector).get_property("textContent")

    def table(self, name):
        """The table with this id: its numbers, with a first column of names left out."""
        rows = self.driver.execute_script(
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
            ".map((row) => [...row.cells].slice(1, 4).map((cell) => cell.textContent))",
            name,
        )
        return np.array([[number(cell) for cell in row] for row in rows])

    def heights(self, plot):
        return np.array(
            self.driver.execute_script(
                "return [...document.querySelectorAll(`#plot-${arguments[0]} .bar`)]"
                ".map((bar) => Number(bar.getAttribute('height')))",
                plot,
            )
        )

    def score(self, i):
        return self.find(f"#plot-scores [aria-label='score of entry {i}']")


def number(text):
    return float(text.replace("−", "-"))


def test_page_stands_alone(page):
    page.driver.get_log("performance")  # forgets what came before
    page.open()
    events = [json.loads(one["message"])["message"] for one in page.driver.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    asked = {one for one in asked if not one.startswith(("data:", "about:"))}
    assert asked == {file.as_uri() for file in FOLDER.iterdir()}
    for file in FOLDER.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, file
        assert "https:" not in text, file
        assert "@import" not in text, file


@pytest.mark.parametrize("tab", ["scores", "heatmap"])
def test_every_control_has_a_name_and_every_tab_numbers(page, tab):
    page.click(f"#tab-{tab}")
    page.slide(second=1)  # the second peak is a control too
    controls = page.all("input, button, select, a, [role=slider]")
    visible = [one for one in controls if one.is_displayed()]
    assert len(visible) > 15
    for control in visible:
        assert control.accessible_name, control.get_attribute("outerHTML")
    text = page.find("main").text
    assert "NaN" not in text
    assert "undefined" not in text
    page.press("[role=tab][aria-selected=true]", Keys.ARROW_RIGHT)
    assert page.find(f"#{tab}").get_attribute("hidden") == "true"


def test_temperature_slider_moves_the_bars_and_the_numbers(page):
    heights, numbers = page.heights("weights"), page.table("scores-table")
    assert page.text("#temperature-value") == "1"
    page.press("#temperature", *[Keys.ARROW_LEFT] * 8)
    assert page.text("#temperature-value") == "0.4"
    moved = page.table("scores-table")
    expected = sx.entmax(moved[:, 0], alpha=1.5, temperature=0.4)
    np.testing.assert_allclose(moved[:, 1], expected, atol=1e-6)
    assert (moved[:, 1] != numbers[:, 1]).sum() >= 3
    after = page.heights("weights")
    assert ((after != heights) == (moved[:, 1] != numbers[:, 1])).all()
    np.testing.assert_allclose(after / after.sum(), moved[:, 1], atol=1e-3)
    assert page.text("#fact-support") == f"{(moved[:, 1] > 0).sum()} of 7"


@pytest.mark.parametrize(
    ("choice", "settings", "of", "line"),
    [
        ("softmax", {}, "index", "sx.softmax(scores, temperature=0.5)"),
        ("sparsemax", {}, 1, "sx.sparsemax(scores, temperature=0.5)"),
        ("entmax", {"alpha": 1.3}, "index", "sx.entmax(scores, alpha=1.3, temperature=0.5)"),
        (
            *("soft_top_k", {"alpha": 2, "k": 2.5}, 4),
            "sx.soft_top_k(scores, k=2.5, alpha=2.0, temperature=0.5)",
        ),
    ],
)
def test_numbers_and_code_are_those_of_the_library(page, choice, settings, of, line):
    page.click(f"#choice input[value={choice}]")
    page.slide(temperature=35, **settings)
    page.pick("of", of)
    scores, weights, slopes = page.table("scores-table").T
    scope = {}
    exec(page.text("#scores-code"), scope)
    assert page.text("#scores-code .main").strip() == f"weights = {line}"
    np.testing.assert_array_equal(scores, scope["scores"])
    np.testing.assert_allclose(weights, scope["weights"], atol=1e-6)
    np.testing.assert_allclose(slopes, scope["slopes"], atol=1e-5)
    np.testing.assert_allclose(number(page.text("#fact-index")), scope["index"], atol=1e-3)
    np.testing.assert_allclose(number(page.text("#fact-argmax")), scores.argmax())
    if choice == "entmax":
        tau = sx.threshold(scores, temperature=0.5, **settings)
        np.testing.assert_allclose(number(page.text("#fact-threshold")), tau, atol=1e-3)


def test_a_score_is_dragged_by_the_mouse_and_moved_by_keys(page):
    before = page.table("scores-table")[:, 0]
    grip = page.score(3).find_element("css selector", ".grip")
    ActionChains(page.driver).drag_and_drop_by_offset(grip, 0, -60).perform()
    page.drawn()
    after = page.table("scores-table")[:, 0]
    assert after[3] > before[3] + 1
    np.testing.assert_array_equal(np.delete(after, 3), np.delete(before, 3))
    page.score(3).send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.PAGE_DOWN)
    page.drawn()
    np.testing.assert_allclose(page.table("scores-table")[3, 0], after[3] + 0.1 - 0.5, atol=1e-9)
    page.score(3).send_keys(Keys.END)
    page.score(2).send_keys(Keys.END)
    page.drawn()
    _, weights, _ = page.table("scores-table").T
    assert weights[2] == weights[3] == weights.max()  # a tie
    assert page.score(3).get_attribute("aria-valuenow") == "3"


def test_a_tie_at_temperature_0_is_shared_and_has_no_gradient(page):
    page.click("[data-preset=tie]")
    scores, weights, slopes = page.table("scores-table").T
    np.testing.assert_array_equal(weights, sx.softmax(scores, temperature=0.0))
    np.testing.assert_array_equal(weights, [0, 0.5, 0, 0.5, 0])
    assert not slopes.any()
    assert page.text("#fact-index") == "2.000"
    assert "gradient is 0" in page.text("#scores-note")


def test_every_setting_draws(page):
    """The ends of the sliders in every choice; the console, checked at the end, is empty."""
    page.click("[data-preset=tail]")
    for choice in ["softmax", "entmax", "sparsemax", "soft_top_k"]:
        page.click(f"#choice input[value={choice}]")
        for entries in [5, 10]:
            for temperature, alpha, k in [(0, 3, 2), (1, 1, 10), (61, 1, 0.1), (1, 3, 0.1)]:
                page.slide(entries=entries, temperature=temperature, alpha=alpha, k=k)
                numbers = page.table("scores-table")
                assert numbers.shape == (entries, 3)
                assert np.isfinite(numbers).all()
                assert len(page.heights("gradient")) == entries


def test_heatmap_numbers_and_code_are_those_of_the_library(page):
    page.click("#tab-heatmap")
    clean = page.table("heatmap-table")
    assert clean[4, 2] < 1e-3 < clean[1, 2]  # no background for expm1_softmax; all for soft_argmax
    page.slide(second=0.6, noise=0.05, background=0.2, row=31.4)
    page.click("#new-noise")
    found = page.table("heatmap-table")
    assert (found != clean).any(1).all()
    scope = {}
    with jax.enable_x64(False):
        exec(page.text("#heatmap-code"), scope)
    names = ["hard", "soft", "sparse", "local", "above"]
    expected = np.array([[float(x) for x in scope[name]] for name in names])
    np.testing.assert_allclose(found[:, :2], expected, atol=2e-3)
    errors = np.hypot(*(found[:, :2] - [31.4, 41.7]).T)
    np.testing.assert_allclose(found[:, 2], errors, atol=2e-3)
    for name, (row, column, _) in zip(READOUTS, found, strict=True):
        mark = page.find(f"#map [data-readout={name}]").get_attribute("transform")
        size = page.find("#map canvas").size["width"]
        at = [float(x) for x in mark.removeprefix("translate(").removesuffix(")").split()]
        np.testing.assert_allclose(at, np.array([column + 0.5, row + 0.5]) / 64 * size, atol=0.1)


def test_peaks_are_dragged_and_moved_by_keys(page):
    page.click("#tab-heatmap")
    peak = page.find("[aria-label='place of the peak']")
    hit = peak.find_element("css selector", ".hit")
    ActionChains(page.driver).drag_and_drop_by_offset(hit, -70, 90).perform()
    page.drawn()
    row, column = (number(page.text(f"#{name}-value")) for name in ("row", "column"))
    assert row > 28
    assert column < 34
    peak.send_keys(Keys.ARROW_DOWN)
    peak.send_keys(Keys.SHIFT + Keys.ARROW_LEFT)
    page.drawn()
    np.testing.assert_allclose(number(page.text("#row-value")), row + 1, atol=1e-9)
    np.testing.assert_allclose(number(page.text("#column-value")), column - 0.1, atol=1e-9)
    np.testing.assert_allclose(
        page.table("heatmap-table")[4, :2], [row + 1, column - 0.1], atol=0.01
    )
    for name in ["heatmap", *READOUTS[1:]]:
        page.pick("shown", name)
        assert page.text("#map-range").startswith("from ")
    page.slide(heat=0)
    assert (page.table("heatmap-table")[:, :2] % 1 == 0).all()


def test_a_view_is_kept_in_the_address_and_nonsense_there_is_ignored(page):
    page.open("#tab=scores&scores=1,2,2,0,-1&choice=soft_top_k&k=1.5&alpha=2&temperature=0&of=1")
    np.testing.assert_allclose(page.table("scores-table")[:, 1], [0, 0.75, 0.75, 0, 0])
    page.open("#tab=heatmap&row=10.5&noise=0.1&seed=3")
    assert page.text("#row-value") == "10.5"
    assert "jax.random.key(3)" in page.text("#heatmap-code")
    page.open("#tab=nothing&scores=1,x,<b>,4,5&choice=argmax&k=-1&temperature=nan&alpha=1e9&of=99")
    assert len(page.table("scores-table")) == 7
    assert np.isfinite(page.table("scores-table")).all()


def test_code_is_copied(page):
    permission = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", permission)
    page.click("[data-copies=scores-code]")
    pasted = page.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))"
    )
    assert pasted == page.text("#scores-code")
    assert page.text("[data-copies=scores-code]") == "Copied"


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_sticks_out_and_a_finger_drags(page, dark):
    page.open(width=390, height=844, dark=dark)
    for tab in ["heatmap", "scores"]:
        page.click(f"#tab-{tab}")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    before = page.table("scores-table")[:, 0]
    box = page.score(1).find_element("css selector", ".grip").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, points in [
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x, "y": y + 20}]),
        ("touchMove", [{"x": x, "y": y + 60}]),
        ("touchEnd", []),
    ]:
        event = {"type": kind, "touchPoints": points}
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", event)
    page.drawn()
    after = page.table("scores-table")[:, 0]
    assert after[1] < before[1] - 1
    np.testing.assert_array_equal(np.delete(after, 1), np.delete(before, 1))


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_page(page, dark):
    page.open(dark=dark)
    colours = page.driver.execute_script(
        "const style = getComputedStyle(document.documentElement);"
        "return ['--paper', '--card', '--ink', '--soft', '--accent'].map((name) =>"
        " style.getPropertyValue(name).trim())"
    )
    paper, card, *texts = map(luminance, colours)
    assert (paper < 0.5) == dark
    for text in texts:
        for ground in (paper, card):
            assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) > 4.5


def luminance(colour):
    """The relative luminance of WCAG 2, of a colour such as #22262f."""
    s = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
