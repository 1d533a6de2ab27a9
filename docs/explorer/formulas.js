"use strict";
/*
 * The formulas of softmaxx that this page shows, in double precision.
 *
 * They are short and plain, and made for tens or thousands of entries. The library does the same
 * for any axis, batch and device. tests/explorer/test_explorer.py compares the two.
 */
const formulas = (() => {
  const NEAR = 1e-12; // an entry this close to the boundary of the support, or to its cap, is there

  const sum = (x) => x.reduce((total, one) => total + one, 0);
  const largest = (x) => x.reduce((most, one) => Math.max(most, one), -Infinity);

  /** The first index of the largest entry. */
  const argmax = (x) => x.indexOf(largest(x));

  /** φ(t) = (1 + (α−1)t)^{1/(α−1)} between 0 and 1; for α = 1 it is exp(t). It is 1 at t = 0. */
  function power(t, alpha) {
    if (t >= -NEAR) return 1;
    const epsilon = alpha - 1;
    if (epsilon < 1e-9) return Math.exp(t);
    return 1 + epsilon * t <= NEAR ? 0 : Math.exp(Math.log1p(epsilon * t) / epsilon);
  }

  /** The t ≤ 0 with φ(t) = p, for p from 0 to 1. */
  function inverse(p, alpha) {
    const epsilon = alpha - 1;
    return epsilon < 1e-9 ? Math.log(p) : Math.expm1(epsilon * Math.log(p)) / epsilon;
  }

  /** The last number at which something holds that holds at `low` and not at `high`; by bisection. */
  function lastTrue(holds, low, high) {
    for (;;) {
      const middle = low + (high - low) / 2;
      if (middle <= low || middle >= high) return low;
      if (holds(middle)) low = middle;
      else high = middle;
    }
  }

  /**
   * Maximises ⟨scores, p⟩ + T·H_α(p) over 0 ≤ p ≤ 1, Σp = k: entmax for k = 1, soft_top_k for any k.
   *
   * p = φ((scores − cap)/T). The cap is the score from which on p = 1. Σp falls in it, so bisection
   * finds it. Where many caps give the same p, this is the highest. Also returned is the score up to
   * which p = 0: −∞ for α = 1.
   */
  function solve(scores, { alpha = 1.5, k = 1, temperature = 1 } = {}) {
    const n = scores.length;
    const peak = largest(scores);
    const budget = Math.min(k, n);
    if (budget === 0) return { p: scores.map(() => 0), cap: Infinity, zero: Infinity };
    if (temperature === 0) return hardest(scores, budget);
    const z = scores.map((x) => (x - peak) / temperature);
    const total = (tau) => z.reduce((all, one) => all + power(one - tau, alpha), 0);
    const low = z.reduce((least, one) => Math.min(least, one), 0) - 1;
    const high = 1 - inverse(budget / n, alpha);
    const tau = lastTrue((one) => total(one) >= budget - NEAR / 2, low, high);
    return {
      p: z.map((one) => power(one - tau, alpha)),
      cap: peak + temperature * tau,
      zero: alpha > 1 ? peak + temperature * (tau - 1 / (alpha - 1)) : -Infinity,
    };
  }

  /** The limit T = 0: the k largest get 1 each, and ties share what is left. */
  function hardest(scores, budget) {
    const levels = [...new Set(scores)].sort((a, b) => b - a);
    const share = new Map();
    let left = budget;
    let last = levels[0];
    for (const level of levels) {
      const size = scores.filter((x) => x === level).length;
      const taken = Math.min(size, left);
      share.set(level, taken / size);
      if (taken > 0) last = level;
      left -= taken;
    }
    return { p: scores.map((x) => share.get(x)), cap: last, zero: last };
  }

  const softmax = (scores, temperature = 1) => {
    if (temperature === 0) return hardest(scores, 1).p;
    const peak = largest(scores);
    const e = scores.map((x) => Math.exp((x - peak) / temperature));
    const total = sum(e);
    return e.map((x) => x / total);
  };

  const entmax = (scores, { alpha = 1.5, temperature = 1 } = {}) =>
    alpha === 1 ? softmax(scores, temperature) : solve(scores, { alpha, temperature }).p;

  const softTopK = (scores, { k, alpha = 2, temperature = 1 }) =>
    solve(scores, { k, alpha, temperature }).p;

  /** The threshold τ of sx.threshold. For α = 1 it is the normaliser T·log Σ exp(scores/T). */
  function threshold(scores, { alpha = 1.5, temperature = 1 } = {}) {
    const peak = largest(scores);
    if (temperature === 0) return peak;
    if (alpha > 1) return solve(scores, { alpha, temperature }).zero;
    return peak + temperature * Math.log(sum(scores.map((x) => Math.exp((x - peak) / temperature))));
  }

  /**
   * The gradient of Σ cᵢpᵢ to the scores: w ⊙ (c − Σwc/Σw)/T, with w = φ' = p^{2−α}.
   *
   * Entries at 0 or at 1 have w = 0. At T = 0, or where no entry moves, the gradient is 0.
   */
  function gradient(p, cotangent, { alpha, temperature }) {
    const w = p.map((one) => (one > 0 && one < 1 ? one ** (2 - alpha) : 0));
    const total = sum(w);
    if (temperature === 0 || total === 0) return p.map(() => 0);
    const mean = sum(w.map((one, i) => one * cotangent[i])) / total;
    return w.map((one, i) => (one === 0 ? 0 : (one * (cotangent[i] - mean)) / temperature));
  }

  const expectedIndex = (p) => sum(p.map((one, i) => one * i));

  /** expm1(z)/Σ expm1(z) with z = max(scores − background, 0)/T; zeros if nothing is above it. */
  function expm1Softmax(scores, { background = 0, temperature = 1 } = {}) {
    const peak = largest(scores);
    if (peak <= background) return scores.map(() => 0);
    if (temperature === 0) return hardest(scores, 1).p;
    // expm1(z) = exp(z)·(1 − exp(−z)), and exp(z) less its largest does not overflow.
    const u = scores.map((x) =>
      x <= background
        ? 0
        : -Math.expm1((background - x) / temperature) * Math.exp((x - peak) / temperature),
    );
    const total = sum(u);
    return u.map((x) => x / total);
  }

  // Heatmaps: scores of rows × columns in one list, row after row.

  const placeOf = (index, columns) => [Math.floor(index / columns), index % columns];

  const expectedPlace = (p, columns) => [
    sum(p.map((one, i) => one * Math.floor(i / columns))),
    sum(p.map((one, i) => one * (i % columns))),
  ];

  /** softmax of the scores at most `window` from the largest along each axis; 0 elsewhere. */
  function localWeights(scores, columns, { window, temperature = 1 }) {
    const [row, column] = placeOf(argmax(scores), columns);
    const inside = scores.map((_, i) => {
      const [r, c] = placeOf(i, columns);
      return Math.abs(r - row) <= window && Math.abs(c - column) <= window;
    });
    const p = softmax(scores.filter((_, i) => inside[i]), temperature);
    let next = 0;
    return inside.map((one) => (one ? p[next++] : 0));
  }

  /** exp(−distance²/(2σ²)) around a centre [row, column]. */
  function gaussian(centre, [rows, columns], sigma) {
    const bell = (x) => Math.exp((-x * x) / (2 * sigma * sigma));
    return Array.from({ length: rows * columns }, (_, i) => {
      const [row, column] = placeOf(i, columns);
      return bell(row - centre[0]) * bell(column - centre[1]);
    });
  }

  /** The weights of each readout of a heatmap, and the place where it lands. */
  function readouts(heatmap, columns, { temperature, background, window }) {
    const hard = heatmap.map(() => 0);
    hard[argmax(heatmap)] = 1;
    const weights = {
      argmax: hard,
      soft_argmax: softmax(heatmap, temperature),
      sparse_argmax: entmax(heatmap, { alpha: 2, temperature }),
      local_argmax: localWeights(heatmap, columns, { window, temperature }),
      expm1_softmax: expm1Softmax(heatmap, { background, temperature }),
    };
    return Object.fromEntries(
      Object.entries(weights).map(([name, p]) => [name, { p, place: expectedPlace(p, columns) }]),
    );
  }

  /** The two words of Threefry-2x32, 20 rounds (Salmon et al. 2011), for a key [0, seed]. */
  function threefry(seed, word0, word1) {
    const keys = [0, seed, 0x1bd11bda ^ seed];
    const turns = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let x = word0 | 0;
    let y = (word1 + seed) | 0;
    for (let block = 0; block < 5; block++) {
      for (const turn of turns[block % 2]) {
        x = (x + y) | 0;
        y = ((y << turn) | (y >>> (32 - turn))) ^ x;
      }
      x = (x + keys[(block + 1) % 3]) | 0;
      y = (y + keys[(block + 2) % 3] + block + 1) | 0;
    }
    return [x, y];
  }

  // Polynomials of Giles, Approximating the erfinv function, 2010, in single precision.
  const CENTRE = [
    2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087, -0.00125372503,
    -0.00417768164, 0.246640727, 1.50140941,
  ];
  const TAIL = [
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
    0.00943887047, 1.00167406, 2.83297682,
  ];

  function inverseErf(x) {
    const w = -Math.log1p(-Math.fround(x * x));
    const [coefficients, u] = w < 5 ? [CENTRE, w - 2.5] : [TAIL, Math.sqrt(w) - 3];
    return x * coefficients.reduce((value, one) => value * u + one, 0);
  }

  /** jax.random.normal(jax.random.key(seed), (n,)), the same numbers, for a seed below 2³¹. */
  function normal(seed, n) {
    const lowest = -1 + 2 ** -24;
    return Array.from({ length: n }, (_, i) => {
      const [x, y] = threefry(seed, 0, i);
      const unit = ((x ^ y) >>> 9) * 2 ** -23;
      return Math.SQRT2 * inverseErf(Math.max(lowest, Math.fround(2 * unit + lowest)));
    });
  }

  return {
    argmax, entmax, expectedIndex, expectedPlace, expm1Softmax, gaussian, gradient, localWeights,
    normal, readouts, softTopK, softmax, solve, sum, threshold,
  };
})();
if (typeof module !== "undefined") module.exports = formulas;
