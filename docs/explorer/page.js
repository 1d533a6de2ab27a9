"use strict";
/* What both tabs need: SVG, numbers as text, sliders, dragging, copying, tabs, and the address. */
const page = (() => {
  const byId = (id) => document.getElementById(id);

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  function draw(parent, name, attributes = {}, text = "") {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    if (text !== "") node.textContent = text;
    parent.append(set(node, attributes));
    return node;
  }

  /** A number for a reader, with a real minus sign and without −0. */
  function shown(x, digits) {
    const text = x.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  /** A number for Python: a float always has its point. */
  const python = (x) => (Number.isInteger(x) ? `${x}.0` : String(x));
  const rounded = (x, digits) => Number(x.toFixed(digits));

  // Temperatures: 0, then 0.01 to 10, twenty to a decade, with two digits.
  const STEPS = 61;
  const temperatureAt = (step) => (step === 0 ? 0 : Number((10 ** ((step - 1) / 20 - 2)).toPrecision(2)));
  const placeOf = (temperature) => (temperature > 0 ? Math.max(1, 20 * (Math.log10(temperature) + 2) + 1) : 0);

  /** A range input that shows its value and calls back; `put` sets it without a call. */
  function slider(id, change, { digits = 2, read = (x) => x, write = (x) => x } = {}) {
    const input = byId(id);
    const output = byId(`${id}-value`);
    const tell = () => {
      const value = read(Number(input.value));
      output.textContent = digits === null ? String(value) : shown(value, digits);
      input.setAttribute("aria-valuetext", output.textContent);
      return value;
    };
    input.addEventListener("input", () => change(tell()));
    return {
      put(value) {
        input.value = write(value);
        tell();
      },
    };
  }
  const temperatureSlider = (id, change) =>
    slider(id, change, { digits: null, read: temperatureAt, write: (one) => Math.round(placeOf(one)) });

  /** Follows a pointer from the time it is pressed on the node; a finger only on `grip`. */
  function drag(node, grip, move) {
    // Without this the page scrolls and takes the finger away: `touch-action` is not enough in SVG.
    grip.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || (event.pointerType === "touch" && event.target !== grip)) return;
      event.preventDefault();
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      const stop = () => {
        for (const name of ["pointerup", "pointercancel"]) node.removeEventListener(name, stop);
        node.removeEventListener("pointermove", move);
      };
      for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, stop);
      node.addEventListener("pointermove", move);
      move(event);
    });
  }

  /** Calls a function once before the next frame, however often it is asked to. */
  function soon(action) {
    let waits = false;
    return () => {
      if (waits) return;
      waits = true;
      requestAnimationFrame(() => {
        waits = false;
        action();
      });
    };
  }

  /** Calls a function when a node has another width, and when it appears. */
  function onWidth(node, action) {
    let width = 0;
    new ResizeObserver(() => {
      if (node.clientWidth === 0 || node.clientWidth === width) return;
      width = node.clientWidth;
      action();
    }).observe(node);
  }

  /** Python code as lines; those of `main` stand out. */
  function showCode(id, lines, main) {
    byId(id).replaceChildren(
      ...lines.map((line) => {
        const span = document.createElement("span");
        span.textContent = `${line}\n`;
        if (main.includes(line)) span.className = "main";
        return span;
      }),
    );
  }

  function selectText(node) {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = byId(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        selectText(code);
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  // The address holds the open tab and its values, so that a view can be sent to somebody.

  const address = new URLSearchParams(location.hash.slice(1));
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const panelOf = (tab) => byId(tab.getAttribute("aria-controls"));
  const opened = () => panelOf(tabs.find((tab) => tab.getAttribute("aria-selected") === "true")).id;
  const values = {};
  let timer;

  function remember(name, state) {
    values[name] = state;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const parts = { tab: opened(), ...values[opened()] };
      const text = Object.entries(parts).map(([key, value]) => `${key}=${value}`).join("&");
      history.replaceState(null, "", `#${text}`);
    }, 300);
  }

  /** What the address says about a tab: numbers in their bounds, or the default. */
  function recalled(name, key, otherwise, [low, high] = [-Infinity, Infinity]) {
    const text = (address.get("tab") ?? "scores") === name ? address.get(key) : null;
    const value = text === null || text === "" ? NaN : Number(text);
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;
  }

  function open(tab) {
    for (const other of tabs) {
      const chosen = other === tab;
      set(other, { "aria-selected": chosen, tabindex: chosen ? 0 : -1 });
      panelOf(other).hidden = !chosen;
    }
    remember(opened(), values[opened()]);
  }

  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      open(next);
      next.focus();
    });
  });
  addEventListener("DOMContentLoaded", () => {
    if (address.get("tab") === "heatmap") open(byId("tab-heatmap"));
  });

  // In a frame of another page: say how high this one is.
  if (parent !== window) {
    const height = () => Math.ceil(document.body.getBoundingClientRect().bottom + scrollY);
    new ResizeObserver(() => parent.postMessage({ explorer: height() }, "*")).observe(document.body);
  }

  return {
    STEPS, address, byId, drag, draw, onWidth, placeOf, python, recalled, remember, rounded, set, showCode,
    shown, slider, soon, temperatureAt, temperatureSlider,
  };
})();
