"use strict";
/* The tab of scores: three rows of bars over the same entries, and what they say in numbers. */
(() => {
  const { address, byId, drag, draw, python, recalled, remember, rounded, set, shown } = page;
  const LIMIT = 3; // scores go from −3 to 3
  const STEP = 0.05;
  const LEFT = 34;
  const PRESETS = {
    start: { scores: [0.4, 1.9, 1.6, -0.6, 1.1, -1.8, 0.2], choice: "entmax", temperature: 1, of: "index" },
    near: { scores: [0.1, 2, 1.9, -3, 0.4], choice: "sparsemax", temperature: 1, of: "index" },
    tie: { scores: [0.5, 1.5, -1, 1.5, 0], choice: "softmax", temperature: 0, of: "index" },
    tail: { scores: [0, 2.5, 0.1, -0.1, 0, 0.1, -0.1, 0, 0.1, 0], choice: "softmax", temperature: 0.79, of: "index" },
    budget: { scores: [1.2, -0.4, 2.1, 0.9, -1.5, 1.6, 0.3], choice: "soft_top_k", k: 2.5, alpha: 2, temperature: 1, of: 0 },
  };
  const state = { alpha: 1.5, k: 2, ...PRESETS.start };

  /** What is computed for the state; `alpha` and `k` are those of the choice. */
  function solved(temperature = state.temperature) {
    const { scores, choice } = state;
    const k = choice === "soft_top_k" ? Math.min(state.k, scores.length) : 1;
    const alpha = { softmax: 1, sparsemax: 2 }[choice] ?? state.alpha;
    const found = formulas.solve(scores, { alpha, k, temperature });
    const p = choice === "soft_top_k" ? found.p : formulas.entmax(scores, { alpha, temperature });
    const cotangent = scores.map((_, i) => (state.of === "index" ? i / k : Number(i === state.of)));
    return {
      p, k, alpha, cap: found.cap, zero: found.zero,
      slopes: formulas.gradient(p, cotangent, { alpha, temperature }),
      index: formulas.expectedIndex(p) / k,
    };
  }

  // Plots

  /** A row of n columns with values from low to high; `x(i)` and `y(value)` are places in it. */
  function frame(svg, low, high, ticks, digits) {
    const width = svg.clientWidth;
    const height = svg.clientHeight;
    const column = (width - LEFT) / state.scores.length;
    const y = (value) => rounded(height - 20 - ((value - low) / (high - low)) * (height - 32), 2);
    svg.replaceChildren();
    set(svg, { viewBox: `0 0 ${width} ${height}` });
    for (const tick of ticks) {
      draw(svg, "line", { class: tick === 0 ? "zero" : "grid", x1: LEFT, x2: width, y1: y(tick), y2: y(tick) });
      draw(svg, "text", { class: "tick", x: LEFT - 8, y: y(tick) + 4 }, shown(tick, digits));
    }
    const x = (i) => rounded(LEFT + (i + 0.5) * column, 2);
    state.scores.forEach((_, i) => draw(svg, "text", { class: "entry", x: x(i), y: height - 4 }, String(i)));
    return { svg, x, y, width, height, column, thick: rounded(Math.min(44, column * 0.56), 2) };
  }

  const bar = ({ x, y, thick }, i, value) => ({
    x: x(i) - thick / 2, width: thick, rx: 2,
    y: Math.min(y(0), y(value)), height: rounded(Math.abs(y(value) - y(0)), 2),
  });

  let handles = [];
  let scoresFrame;

  /** Sliders of the scores: made once for a number of entries, so that they keep the focus. */
  function makeHandles() {
    scoresFrame = frame(byId("plot-scores"), -LIMIT, LIMIT, [-3, 0, 3], 0);
    const { svg, x, column, height, width } = scoresFrame;
    const limits = ["cap", "zero"].map((name) => ({
      name,
      line: draw(svg, "line", { class: `limit ${name}`, x1: LEFT, x2: width }),
      text: draw(svg, "text", { class: "tick limit-value", x: LEFT - 8 }),
    }));
    handles = state.scores.map((_, i) => {
      const node = draw(svg, "g", {
        class: "handle", role: "slider", tabindex: 0, "aria-label": `score of entry ${i}`,
        "aria-orientation": "vertical", "aria-valuemin": -LIMIT, "aria-valuemax": LIMIT,
      });
      draw(node, "rect", { class: "column", x: x(i) - column / 2, width: column, y: 0, height });
      const parts = {
        node,
        bar: draw(node, "rect", { class: "bar" }),
        text: draw(node, "text", { class: "value", x: x(i) }),
        ring: draw(node, "circle", { class: "ring", cx: x(i), r: 12 }),
        grip: draw(node, "circle", { class: "grip", cx: x(i), r: 7 }),
        hit: draw(node, "circle", { class: "hit", cx: x(i), r: Math.min(24, column / 2 + 4) }),
      };
      drag(node, parts.hit, (event) => put(i, scoreAt(event)));
      node.addEventListener("keydown", (event) => byKey(event, i));
      return parts;
    });
    scoresFrame.limits = limits;
  }

  function scoreAt(event) {
    const box = byId("plot-scores").getBoundingClientRect();
    const { y } = scoresFrame;
    return LIMIT - ((event.clientY - box.top - y(LIMIT)) / (y(-LIMIT) - y(LIMIT))) * 2 * LIMIT;
  }

  function byKey(event, i) {
    const score = state.scores[i];
    const next = {
      ArrowUp: score + STEP, ArrowRight: score + STEP, ArrowDown: score - STEP, ArrowLeft: score - STEP,
      PageUp: score + 10 * STEP, PageDown: score - 10 * STEP, Home: -LIMIT, End: LIMIT,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    put(i, next);
  }

  function put(i, score) {
    state.scores[i] = rounded(Math.round(Math.min(LIMIT, Math.max(-LIMIT, score)) / STEP) * STEP, 2);
    update();
  }

  function drawScores({ p, cap, zero, k, alpha }) {
    const { svg, y, limits } = scoresFrame;
    const ticks = svg.querySelectorAll(".tick:not(.limit-value)");
    for (const tick of ticks) set(tick, { visibility: "visible" });
    handles.forEach(({ node, bar: rect, text, ring, grip, hit }, i) => {
      const score = state.scores[i];
      set(rect, { ...bar(scoresFrame, i, score), class: p[i] > 0 ? "bar" : "bar out" });
      for (const circle of [ring, grip, hit]) set(circle, { cy: y(score) });
      set(text, { y: y(score) + (score < 0 ? 23 : -13) });
      text.textContent = shown(score, 2);
      set(node, { "aria-valuenow": score, "aria-valuetext": shown(score, 2), class: p[i] > 0 ? "handle" : "handle out" });
    });
    const values = { cap, zero };
    const apart = Math.max(0, 13 - Math.abs(y(zero) - y(cap))) / 2; // two values close to each other
    for (const { name, line, text } of limits) {
      const value = values[name];
      const wanted = state.temperature > 0 && (name === "cap" ? state.choice === "soft_top_k" : alpha > 1);
      const visible = wanted && Math.abs(value) <= LIMIT && k < state.scores.length;
      for (const node of [line, text]) set(node, { visibility: visible ? "visible" : "hidden" });
      byId(`key-${name}`).hidden = !visible;
      if (!visible) continue;
      set(line, { y1: y(value), y2: y(value) });
      const both = state.choice === "soft_top_k" && alpha > 1;
      set(text, { y: y(value) + 4 + (both ? apart : 0) * (name === "cap" ? -1 : 1) });
      text.textContent = shown(value, 2);
      for (const tick of ticks) if (Math.abs(y(value) + 4 - tick.getAttribute("y")) < 12) set(tick, { visibility: "hidden" });
    }
  }

  function drawWeights({ p, index }) {
    const plot = frame(byId("plot-weights"), 0, 1, [0, 0.5, 1], 1);
    const { svg, x, y, column, height } = plot;
    p.forEach((one, i) => {
      const node = draw(svg, "g", { class: state.of === i ? "pick chosen" : "pick" });
      draw(node, "rect", { class: "column", x: x(i) - column / 2, width: column, y: 0, height: height - 17, rx: 4 });
      draw(node, "rect", { class: "bar", ...bar(plot, i, one) });
      label(node, x(i), y(one) - 5, one, column);
      node.addEventListener("click", () => choose({ of: i }));
    });
    const at = x(index);
    draw(svg, "path", { class: "diamond", d: `M${at} ${y(0) - 7} l6 7 -6 7 -6 -7z` });
  }

  /** A value as short as its column; 0 means exactly 0. */
  function label(node, x, y, value, column) {
    const digits = column < 44 ? 2 : 3;
    const least = 0.5 * 10 ** -digits;
    let text = shown(value, digits);
    if (value === 0 || value === 1) text = String(value);
    else if (Math.abs(value) < least) text = digits === 2 ? "≈0" : "<.001".replace("<", value < 0 ? ">−" : "<");
    draw(node, "text", { class: value === 0 ? "value none" : "value", x, y }, text);
  }

  function drawGradient({ slopes }) {
    const most = Math.max(...slopes.map(Math.abs));
    const top = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((one) => one >= most) ?? most;
    const high = 1.3 * top;
    const plot = frame(byId("plot-gradient"), -high, high, [-top, 0, top], top < 1 ? 1 : 0);
    const { svg, x, y, column } = plot;
    slopes.forEach((one, i) => {
      draw(svg, "rect", { class: one < 0 ? "bar minus" : "bar plus", ...bar(plot, i, one) });
      label(svg, x(i), y(one) + (one < 0 ? 14 : -5), one, column);
    });
  }

  /** The weights over the temperature, above its slider and on the same scale. */
  function drawPath() {
    const svg = byId("plot-path");
    const [width, height] = [svg.clientWidth, svg.clientHeight];
    const [thumb, top] = [9, 20];
    const y = (p) => rounded(height - 2 - p * (height - 2 - top), 2);
    const x = (temperature) => rounded(thumb + (page.placeOf(temperature) / page.STEPS) * (width - 2 * thumb), 2);
    svg.replaceChildren();
    set(svg, { viewBox: `0 0 ${width} ${height}` });
    for (const tick of [0, 1]) draw(svg, "line", { class: tick ? "grid" : "zero", x1: 0, x2: width, y1: y(tick), y2: y(tick) });
    const at = x(state.temperature);
    draw(svg, "line", { class: "now", x1: at, x2: at, y1: top, y2: height });
    const temperatures = Array.from({ length: page.STEPS + 1 }, (_, step) => page.temperatureAt(step));
    const paths = temperatures.map((one) => solved(one).p);
    state.scores.forEach((_, i) => {
      const points = temperatures.map((one, step) => `${x(one)} ${y(paths[step][i])}`);
      draw(svg, "polyline", { class: state.of === i ? "line chosen" : "line", points: points.join(" ") });
    });
    draw(svg, "text", { class: "path-name", x: 0, y: 12 }, "weights over T, from 0 to 1");
  }

  // Words and numbers

  function settings() {
    const { choice, temperature } = state;
    const { k, alpha } = solved();
    const size = python(rounded(k, 2));
    return {
      softmax: `temperature=${python(temperature)}`,
      sparsemax: `temperature=${python(temperature)}`,
      entmax: `alpha=${python(alpha)}, temperature=${python(temperature)}`,
      soft_top_k: `k=${size}, alpha=${python(alpha)}, temperature=${python(temperature)}`,
    }[choice];
  }

  function code({ k }) {
    const call = (x) => `sx.${state.choice}(${x}, ${settings()})`;
    const readout = {
      softmax: (x) => `sx.soft_argmax(${x}, ${settings()})`,
      sparsemax: (x) => `sx.sparse_argmax(${x}, ${settings()})`,
      entmax: (x) => `sx.sparse_argmax(${x}, ${settings()})`,
      soft_top_k: (x) => `sx.expected_index(${call(x)}) / ${python(rounded(k, 2))}`,
    }[state.choice];
    const read = state.of === "index" ? readout("x") : `${call("x")}[${state.of}]`;
    const weights = `weights = ${call("scores")}`;
    return {
      main: [weights],
      lines: [
        "import jax", "import jax.numpy as jnp", "import softmaxx as sx", "",
        `scores = jnp.array([${state.scores.map(python).join(", ")}])`,
        weights,
        `index = ${readout("scores")}`,
        `slopes = jax.grad(lambda x: ${read})(scores)`,
        "print(weights, index, slopes)",
      ],
    };
  }

  function note({ p, k, alpha, slopes }) {
    const { choice, temperature, scores } = state;
    const n = scores.length;
    const ties = scores.filter((one) => one === Math.max(...scores)).length;
    if (temperature === 0) {
      const share = ties > 1 && choice !== "soft_top_k" ? ` The ${ties} largest share the weight alike, while argmax takes the first.` : "";
      return `T = 0 is the hard answer, and its gradient is 0.${share}`;
    }
    if (choice === "soft_top_k" && k >= n) return "The budget is as large as the number of entries: each has weight 1.";
    if (slopes.every((one) => one === 0) && p.every((one) => one === 0 || one === 1))
      return `Every entry is at 0 or at 1, so the gradient is 0. Raise T${choice === "soft_top_k" ? ", or take k between whole numbers" : ""}.`;
    if (alpha === 1 && choice !== "soft_top_k")
      return "Every entry has a weight and a gradient, however low its score is. Many low entries pull the index to the middle.";
    const out = p.filter((one) => one === 0).length;
    const capped = choice === "soft_top_k" ? p.filter((one) => one === 1).length : 0;
    const have = (count, weight) => `${count} of ${n} entries ${count > 1 ? "have" : "has"} weight ${weight}, and no gradient.`;
    const full = capped ? ` ${have(capped, "1")}` : "";
    if (out > 0) return have(out, "exactly 0") + full;
    return (alpha === 1 ? "No entry has weight 0." : "All entries have a weight. Lower a score, or T, until one is exactly 0.") + full;
  }

  function tell(result) {
    const { p, k, slopes, index, alpha, zero } = result;
    byId("fact-argmax").textContent = formulas.argmax(state.scores);
    byId("fact-index").textContent = shown(index, 3);
    byId("fact-index-name").textContent = state.choice === "soft_top_k" ? "mean index of the k" : "expected index";
    byId("fact-support").textContent = `${p.filter((one) => one > 0).length} of ${p.length}`;
    const cut = alpha > 1 && Number.isFinite(zero) && k < p.length;
    byId("fact-threshold").textContent = cut ? shown(zero, 3) : "none";
    byId("weights-sum").textContent = shown(k, Number.isInteger(k) ? 0 : 1);
    byId("of-unit").textContent = `${state.of === "index" ? "entries" : "weight"} per unit of score`;
    const words = note(result);
    if (byId("scores-note").textContent !== words) byId("scores-note").textContent = words;
    byId("scores-table").tBodies[0].replaceChildren(
      ...p.map((one, i) => {
        const row = document.createElement("tr");
        if (one === 0) row.className = "out";
        const cells = [String(i), shown(state.scores[i], 2), shown(one, 6), shown(slopes[i], 6)];
        cells.forEach((text) => (row.insertCell().textContent = text));
        return row;
      }),
    );
    const { lines, main } = code(result);
    page.showCode("scores-code", lines, main);
  }

  // Controls

  const sliders = {
    temperature: page.temperatureSlider("temperature", (temperature) => choose({ temperature })),
    alpha: page.slider("alpha", (alpha) => choose({ alpha })),
    k: page.slider("k", (k) => choose({ k }), { digits: 1 }),
    entries: page.slider("entries", (n) => resize(n), { digits: 0 }),
  };

  function resize(n) {
    const more = PRESETS.start.scores.concat([0.8, -0.2, -1]).slice(state.scores.length, n);
    const of = state.of === "index" || state.of < n ? state.of : "index";
    choose({ scores: state.scores.slice(0, n).concat(more), of });
  }

  function choose(changes) {
    const n = state.scores.length;
    Object.assign(state, changes);
    state.k = Math.min(state.k, state.scores.length);
    if (state.scores.length !== n) makeHandles();
    putControls();
    update();
  }

  function putControls() {
    const n = state.scores.length;
    byId("k").max = n;
    sliders.temperature.put(state.temperature);
    sliders.alpha.put(state.alpha);
    sliders.k.put(state.k);
    sliders.entries.put(n);
    byId("choice").querySelector(`[value=${state.choice}]`).checked = true;
    byId("alpha-row").hidden = state.choice === "softmax" || state.choice === "sparsemax";
    byId("k-row").hidden = state.choice !== "soft_top_k";
    const options = ["index", ...state.scores.keys()].map((of) => {
      const text = of !== "index" ? `of weight ${of}` : state.choice === "soft_top_k" ? "of the mean index" : "of the index";
      return new Option(text, of, false, of === state.of);
    });
    byId("of").replaceChildren(...options);
  }

  function show() {
    const result = solved();
    drawScores(result);
    drawWeights(result);
    drawGradient(result);
    drawPath();
    tell(result);
    const { scores, choice, temperature, alpha, k, of } = state;
    remember("scores", { scores: scores.join(","), choice, temperature, alpha, k, of });
  }
  const update = page.soon(show);

  function fromAddress() {
    const given = (address.get("scores") ?? "").split(",").map(Number);
    if (given.length >= 5 && given.length <= 10 && given.every((x) => Math.abs(x) <= LIMIT)) state.scores = given;
    const radios = [...document.getElementsByName("choice")].map((radio) => radio.value);
    if (radios.includes(address.get("choice"))) state.choice = address.get("choice");
    state.temperature = recalled("scores", "temperature", state.temperature, [0, 10]);
    state.alpha = recalled("scores", "alpha", state.alpha, [1, 3]);
    state.k = recalled("scores", "k", state.k, [0.1, state.scores.length]);
    const of = recalled("scores", "of", NaN, [0, state.scores.length - 1]);
    if (Number.isInteger(of)) state.of = of;
  }

  for (const radio of document.getElementsByName("choice"))
    radio.addEventListener("change", () => choose({ choice: radio.value }));
  byId("of").addEventListener("change", ({ target }) =>
    choose({ of: target.value === "index" ? "index" : Number(target.value) }));
  for (const button of document.querySelectorAll("[data-preset]"))
    button.addEventListener("click", () => {
      const { scores, ...others } = PRESETS[button.dataset.preset];
      choose({ scores: [...scores], ...others });
    });

  state.scores = [...state.scores];
  fromAddress();
  putControls();
  page.onWidth(byId("plot-scores"), () => {
    makeHandles();
    show();
  });
})();
