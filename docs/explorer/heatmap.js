"use strict";
/* The tab of heatmaps: a peak, what disturbs it, and where each readout lands. */
(() => {
  const { byId, drag, draw, python, recalled, remember, rounded, set, shown } = page;
  const N = 64; // rows and columns
  const WINDOW = 5;
  const LOUPE = 2; // pixels around the peak
  const START = {
    row: 20.3, column: 41.7, sigma: 3, second: 0, secondRow: 46, secondColumn: 14,
    background: 0, noise: 0, temperature: 0.2, seed: 0,
  };
  const BOUNDS = {
    row: [0, 63], column: [0, 63], sigma: [0.5, 8], second: [0, 1.2], secondRow: [0, 63],
    secondColumn: [0, 63], background: [0, 0.5], noise: [0, 0.3], temperature: [0, 10], seed: [0, 1e6],
  };
  const PRESETS = {
    clean: {},
    level: { background: 0.3 },
    noisy: { background: 0.1, noise: 0.08 },
    two: { second: 0.8, background: 0.05, noise: 0.02 },
  };
  // Each readout has a mark: a path around [0, 0].
  const MARKS = {
    argmax: "M-6 -6h12v12h-12z",
    soft_argmax: "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0",
    sparse_argmax: "M0 -8l7.5 13h-15z",
    local_argmax: "M-8 0h16M0 -8v16",
    expm1_softmax: "M-6 -6l12 12M-6 6l12 -12",
  };
  const state = { ...START, shown: "heatmap" };
  for (const [key, bounds] of Object.entries(BOUNDS)) state[key] = recalled("heatmap", key, state[key], bounds);
  state.seed = Math.round(state.seed);

  let noise = { seed: null };
  function heatmap() {
    if (noise.seed !== state.seed) noise = { seed: state.seed, values: formulas.normal(state.seed, N * N) };
    const first = formulas.gaussian([state.row, state.column], [N, N], state.sigma);
    const second = formulas.gaussian([state.secondRow, state.secondColumn], [N, N], state.sigma);
    return first.map((x, i) => state.background + x + state.second * second[i] + state.noise * noise.values[i]);
  }

  /** The background that expm1_softmax is told: three deviations of the noise above the level. */
  const told = () => rounded(state.background + 3 * state.noise, 2);

  // The map

  const colour = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };

  /** Draws the values from the least to the largest, and gives these two. */
  function paint(values) {
    const context = byId("map").querySelector("canvas").getContext("2d");
    const pixels = context.createImageData(N, N);
    const [from, to] = [colour("--map-low"), colour("--map-high")];
    const low = values.reduce((least, x) => Math.min(least, x), Infinity);
    const high = values.reduce((most, x) => Math.max(most, x), -Infinity);
    values.forEach((x, i) => {
      const share = high > low ? (x - low) / (high - low) : 0;
      from.forEach((start, c) => (pixels.data[4 * i + c] = start + share * (to[c] - start)));
      pixels.data[4 * i + 3] = 255;
    });
    context.putImageData(pixels, 0, 0);
    return [low, high];
  }

  const mapSvg = byId("map").querySelector("svg");
  const loupeSvg = byId("loupe").querySelector("svg");
  let handles = [];
  let size; // of the map, in units of the screen

  const onMap = (position) => ((position + 0.5) / N) * size; // pixel i is centred at i

  function makeMap() {
    size = mapSvg.clientWidth;
    mapSvg.replaceChildren();
    set(mapSvg, { viewBox: `0 0 ${size} ${size}` });
    for (const tick of [0, 16, 32, 48, 63]) {
      draw(mapSvg, "text", { class: "entry", x: onMap(tick), y: size + 16 }, String(tick));
      draw(mapSvg, "text", { class: "tick", x: -6, y: onMap(tick) + 4 }, String(tick));
    }
    draw(mapSvg, "text", { class: "entry", x: size / 2, y: size + 33 }, "column, px");
    draw(mapSvg, "text", { class: "entry", transform: `translate(-12 ${onMap(40)}) rotate(-90)` }, "row, px");
    const marks = draw(mapSvg, "g", { "pointer-events": "none" });
    handles = [["row", "column", "peak"], ["secondRow", "secondColumn", "second peak"]].map(([row, column, name]) => {
      const node = draw(mapSvg, "g", { class: "handle move", role: "slider", tabindex: 0, "aria-label": `place of the ${name}`, "aria-valuemin": 0, "aria-valuemax": N - 1 });
      draw(node, "circle", { class: "ring", r: 15 });
      draw(node, "path", { class: "truth", d: "M-15 0h-7M15 0h7M0 -15v-7M0 15v7" });
      const hit = draw(node, "circle", { class: "hit", r: 24 });
      drag(node, hit, (event) => {
        const box = mapSvg.getBoundingClientRect();
        const at = (offset) => (offset / box.width) * N - 0.5;
        put({ [row]: at(event.clientY - box.top), [column]: at(event.clientX - box.left) });
      });
      node.addEventListener("keydown", (event) => {
        const [key, step] = { ArrowUp: [row, -1], ArrowDown: [row, 1], ArrowLeft: [column, -1], ArrowRight: [column, 1] }[event.key] ?? [];
        if (!key) return;
        event.preventDefault();
        put({ [key]: state[key] + step * (event.shiftKey ? 0.1 : 1) });
      });
      return { node, row, column };
    });
    handles.marks = marks;
  }

  function put(changes) {
    for (const [key, value] of Object.entries(changes)) {
      const [low, high] = BOUNDS[key];
      state[key] = rounded(Math.min(high, Math.max(low, value)), 1);
    }
    putControls();
    update();
  }

  function drawMarks(found) {
    handles.marks.replaceChildren();
    for (const { node, row, column } of handles) {
      const visible = row === "row" || state.second > 0;
      set(node, {
        transform: `translate(${rounded(onMap(state[column]), 2)} ${rounded(onMap(state[row]), 2)})`,
        "aria-valuenow": state[row], "aria-valuetext": `row ${shown(state[row], 1)}, column ${shown(state[column], 1)}`,
        visibility: visible ? "visible" : "hidden", tabindex: visible ? 0 : -1,
      });
    }
    for (const [name, { place }] of Object.entries(found)) {
      const transform = `translate(${rounded(onMap(place[1]), 2)} ${rounded(onMap(place[0]), 2)})`;
      mark(draw(handles.marks, "g", { transform, "data-readout": name }), name);
    }
  }

  function mark(parent, name) {
    draw(parent, "path", { class: "halo", d: MARKS[name] });
    draw(parent, "path", { class: "mark", d: MARKS[name], style: `stroke: var(--${name})` });
  }

  /** The pixels around the true peak, and the readouts that land there. */
  function drawLoupe(found) {
    const canvas = byId("loupe").querySelector("canvas");
    const context = canvas.getContext("2d");
    const corner = [state.column + 0.5 - LOUPE, state.row + 0.5 - LOUPE];
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(byId("map").querySelector("canvas"), ...corner, 2 * LOUPE, 2 * LOUPE, 0, 0, canvas.width, canvas.height);
    const width = loupeSvg.clientWidth;
    loupeSvg.replaceChildren();
    set(loupeSvg, { viewBox: `0 0 ${width} ${width}` });
    const half = width / 2;
    draw(loupeSvg, "path", { class: "truth", d: `M${half} 0v${half - 14}M${half} ${half + 14}v${half - 14}M0 ${half}h${half - 14}M${half + 14} ${half}h${half - 14}`, opacity: 0.4 });
    for (const [name, { place }] of Object.entries(found)) {
      const [y, x] = [place[0] - state.row, place[1] - state.column].map((d) => half + (d / LOUPE) * half);
      mark(draw(loupeSvg, "g", { transform: `translate(${rounded(x, 2)} ${rounded(y, 2)})` }), name);
    }
  }

  // Numbers and code

  const short = (x) =>
    Math.abs(x) >= 0.01 || Math.abs(x) < 1e-6 ? shown(x, 2) : x.toExponential(0).replaceAll("-", "−");

  function tell(found, values) {
    const rows = Object.entries(found).map(([name, { place }]) => {
      const error = Math.hypot(place[0] - state.row, place[1] - state.column);
      const row = document.createElement("tr");
      row.dataset.readout = name;
      const cell = row.insertCell();
      mark(draw(draw(cell, "svg", { viewBox: "-11 -11 22 22", "aria-hidden": true }), "g"), name);
      cell.append(name);
      for (const text of [shown(place[0], 3), shown(place[1], 3), shown(error, 3)]) row.insertCell().textContent = text;
      const scale = row.insertCell();
      scale.className = "scale";
      const bar = document.createElement("div");
      bar.className = "error";
      const share = (Math.log10(Math.max(error, 0.001)) + 3) / 5; // from 0.001 to 100 px
      bar.style.cssText = `width: ${(100 * share).toFixed(1)}%; background: var(--${name})`;
      scale.append(bar);
      return row;
    });
    byId("legend").replaceChildren(...Object.entries(found).map(([name, { place }]) => {
      const item = document.createElement("li");
      mark(draw(draw(item, "svg", { viewBox: "-11 -11 22 22", "aria-hidden": true }), "g"), name);
      const [label, error] = [document.createElement("code"), document.createElement("span")];
      label.textContent = name;
      error.textContent = `${shown(Math.hypot(place[0] - state.row, place[1] - state.column), 2)} px off`;
      item.append(label, error);
      return item;
    }));
    byId("heatmap-table").tBodies[0].replaceChildren(...rows);
    const words = note(found, values);
    if (byId("heatmap-note").textContent !== words) byId("heatmap-note").textContent = words;
    page.showCode("heatmap-code", ...code());
  }

  function note(found, values) {
    const above = values.some((x) => x > told());
    const background = shown(told(), 2);
    if (!above) return `No score is above the background ${background} that expm1_softmax is told, so its weights are 0, and so is its place.`;
    if (state.temperature === 0) return "At T = 0 each readout gives the largest score, whole pixels, and the gradient is 0.";
    const rule = state.noise > 0 ? "the level and three deviations of the noise" : "the level";
    return `expm1_softmax is told the background ${background}: ${rule}. local_argmax reads ${2 * WINDOW + 1} × ${2 * WINDOW + 1} pixels around the largest score.`;
  }

  function code() {
    const centres = [[state.row, state.column]];
    if (state.second > 0) centres.push([state.secondRow, state.secondColumn]);
    const listed = centres.map((one) => `[${one.map(python).join(", ")}]`).join(", ");
    const terms = [state.background > 0 && python(state.background), state.second > 0 ? `peaks[0] + ${python(state.second)} * peaks[1]` : "peaks[0]", state.noise > 0 && `${python(state.noise)} * noise`];
    const T = `temperature=${python(state.temperature)}`;
    const background = told() > 0 ? `background=${python(told())}, ` : "";
    const main = [
      `soft = sx.soft_argmax(heatmap, axis=axes, ${T})`,
      `sparse = sx.sparse_argmax(heatmap, axis=axes, ${T})`,
      `local = sx.local_argmax(heatmap, window=${WINDOW}, axis=axes, ${T})`,
      `weights = sx.expm1_softmax(heatmap, ${background}axis=axes, ${T})`,
      "above = sx.expected_index(weights, axis=axes)",
    ];
    const lines = ["import jax", "import jax.numpy as jnp", "import softmaxx as sx", "",
      `centres = jnp.array([${listed}])  # row, column`,
      `peaks = sx.gaussian_heatmap(centres, shape=(${N}, ${N}), sigma=${python(state.sigma)})`];
    if (state.noise > 0) lines.push(`noise = jax.random.normal(jax.random.key(${state.seed}), (${N}, ${N}))`);
    lines.push(`heatmap = ${terms.filter(Boolean).join(" + ")}`, "axes = (0, 1)", "",
      "hard = jnp.unravel_index(heatmap.argmax(), heatmap.shape)", ...main, "print(hard, soft, sparse, local, above)");
    return [state.noise > 0 ? lines : lines.slice(1), main];
  }

  // Controls

  const sliders = {
    temperature: page.temperatureSlider("heat", (temperature) => choose({ temperature })),
    ...Object.fromEntries(
      [["row", 1], ["column", 1], ["sigma", 1], ["second", 2], ["background", 2], ["noise", 2]].map(([key, digits]) =>
        [key, page.slider(key, (value) => choose({ [key]: value }), { digits })]),
    ),
  };

  function putControls() {
    for (const [key, slider] of Object.entries(sliders)) slider.put(state[key]);
  }

  function choose(changes) {
    Object.assign(state, changes);
    putControls();
    update();
  }

  function show() {
    if (!handles.length) return; // the tab has not been opened yet
    const values = heatmap();
    const { temperature } = state;
    const found = formulas.readouts(values, N, { temperature, background: told(), window: WINDOW });
    const seen = state.shown === "heatmap" ? values : found[state.shown].p;
    const [low, high] = paint(seen).map(short);
    byId("map-range").textContent = `from ${low} to ${high}`;
    drawLoupe(found);
    drawMarks(found);
    tell(found, values);
    remember("heatmap", Object.fromEntries(Object.keys(START).map((key) => [key, state[key]])));
  }
  const update = page.soon(show);

  byId("shown").addEventListener("change", ({ target }) => choose({ shown: target.value }));
  for (const button of document.querySelectorAll("[data-map]"))
    button.addEventListener("click", () => choose({ ...START, ...PRESETS[button.dataset.map], seed: state.seed }));
  byId("new-noise").addEventListener("click", () => choose({ seed: state.seed + 1, noise: state.noise || 0.08 }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  putControls();
  page.onWidth(mapSvg, () => {
    makeMap();
    show();
  });
})();
