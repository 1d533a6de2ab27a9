"""How biased and how noisy gradients through a choice are, for losses of known gradient.

One of six categories with scores θ is drawn, D ~ softmax(θ). Every estimator and relaxation
estimates ∇ E f(D) for a linear, quadratic, quartic and exponential f. Surrogate gradients see the
derivative of f. The table has the bias, the standard deviation (the root of the total variance) and
the root mean squared error, each over the norm of the exact gradient, for one draw of what the row
says. There is no Monte Carlo. Rows are

  enumerated, if the draw is their only randomness: over its six outcomes, through the functions of
    the library. `perturbed` is enumerated over all 1287 ways in which eight samples can fall, with
    the moments of its score function, given them, in closed form.
  integrated, if their noise is continuous (marked ~): over 32 groups of 2^15 scrambled Sobol
    points. The spread of the groups gives the largest error of a column, printed below the table.
    `gumbel_rao` is their mean given the draw.

Some rows are not computed by calling the function itself. They are checked against draws of it, to
five standard errors. All is float64 on CPU. The script writes
benchmarks/results/estimators-jax<version>.json and docs/estimators.png.

    pip install -e . matplotlib tqdm
    python benchmarks/estimators.py                  # about a minute
"""

import itertools
import json
import math
import platform
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from measuring import pyplot, tqdm

import softmaxx as sx

Loss = Callable[[jax.Array], jax.Array]  # of a point of the simplex
Draw = Callable[
    [jax.Array, jax.Array], jax.Array
]  # (scores, noise) -> the point that the loss is asked at

N = 6
TEMPERATURE, STRENGTH = 0.5, 2.0
RAO_SAMPLES, PERTURBED_SAMPLES = 32, 8
GROUPS, POINTS, CHECKED = 32, 2**15, 2**14
PERTURBED_LOSS = f"perturbed, loss in the oracle, N = {PERTURBED_SAMPLES}"
PERTURBED_POINT = f"perturbed, loss at the mean, N = {PERTURBED_SAMPLES}"
HARD, RELAXED = f"hard_gumbel_softmax, T = {TEMPERATURE} ~", f"gumbel_softmax, T = {TEMPERATURE} ~"
RAO, IMPLICIT = (
    f"gumbel_rao, T = {TEMPERATURE}, N = {RAO_SAMPLES} ~",
    f"implicit_mle, strength {STRENGTH:g} ~",
)

jax.config.update("jax_enable_x64", True)
_random = np.random.RandomState(0)
SCORES, A, B = (
    jnp.asarray(_random.randn(N)),
    jnp.asarray(_random.randn(N)),
    jnp.asarray(_random.randn(N, N)),
)
VERTICES, P = jnp.eye(N), np.asarray(jax.nn.softmax(SCORES))
LOSSES: dict[str, Loss] = {
    "linear": lambda y: A @ y,
    "quadratic": lambda y: y @ B @ y,
    "quartic": lambda y: (A @ y - 1) ** 4,
    "exponential": lambda y: jnp.exp(A @ y),
}


class Moments(NamedTuple):
    """Mean `[n]` and total variance of a gradient estimate, for each group of an integral."""

    mean: np.ndarray
    variance: np.ndarray


def values(f: Loss) -> np.ndarray:
    return np.asarray(jax.vmap(f)(VERTICES))


def exact(f: Loss) -> np.ndarray:
    """∇ Σ p_i f(e_i) = (diag(p) − ppᵀ)f."""
    return P * (values(f) - P @ values(f))


# Enumerated


def weighted(
    gradients: np.ndarray, weights: np.ndarray, inner_variance: np.ndarray | float = 0.0
) -> Moments:
    """The moments of a mixture, of components with these means and variances."""
    mean = weights @ gradients
    return Moments(
        mean[None], np.asarray([weights @ (((gradients - mean) ** 2).sum(1) + inner_variance)])
    )


def keys_of_outcomes() -> jax.Array:
    """A key for each category, with which the library draws it."""
    keys = jax.random.split(jax.random.key(0), 4096)
    drawn = jax.jit(jax.vmap(lambda key: sx.hard_gumbel_softmax(SCORES, key=key)))(keys)
    return keys[drawn.argmax(0)]


def by_key(draw: Callable) -> Callable[[Loss], Moments]:
    """Of a sample whose gradient depends on the draw alone."""
    keys = keys_of_outcomes()

    def moments(f):
        gradients = jax.vmap(lambda key: jax.grad(lambda scores: f(draw(scores, key=key)))(SCORES))(
            keys
        )
        return weighted(np.asarray(gradients), P)

    return moments


def by_draw(draw: Draw) -> Callable[[Loss], Moments]:
    """Of an estimator that is told the draw."""

    def moments(f):
        gradients = jax.vmap(lambda drawn: jax.grad(lambda scores: f(draw(scores, drawn)))(SCORES))(
            VERTICES
        )
        return weighted(np.asarray(gradients), P)

    return moments


def fixed(choice: Callable) -> Callable[[Loss], Moments]:
    """Of a map without randomness."""
    return lambda f: weighted(
        np.asarray(jax.grad(lambda scores: f(choice(scores)))(SCORES))[None], np.ones(1)
    )


def reinforce(baseline: bool) -> Callable[[Loss], Moments]:
    def moments(f):
        gain = values(f) - (P @ values(f) if baseline else 0)
        return weighted(gain[:, None] * (np.eye(N) - P), P)

    return moments


def perturbed_moments(at_the_mean: bool) -> Callable[[Loss], Moments]:
    """The estimate Σ_i c_i·ν'(z_i) of `perturbed` with Gumbel noise, over its N samples i.

    c_i = (v_i − the mean of the other v)/N.

    v is the loss of the sample. If the loss is taken at the mean answer, v is the slope of the loss
    there. c follows from the categories of the samples. Given that category k is drawn,
    ν'(z)_j = 1 − exp(−z_j) is 1 − p_k E for j = k and 1 − E_j − p_j E otherwise, with standard
    exponentials E. Its mean is e_k − p, its variance p_k² or 1 + p_j².
    """
    count = PERTURBED_SAMPLES
    falls = itertools.combinations_with_replacement(range(N), count)
    counts = np.stack([np.bincount(fall, minlength=N) for fall in falls])
    factorial = np.vectorize(math.factorial)
    chances = math.factorial(count) / factorial(counts).prod(1) * (P**counts).prod(1)
    spread = P**2 + (1 + P**2).sum() - (1 + P**2)

    def moments(f):
        v = (
            np.asarray(jax.vmap(jax.grad(f))(jnp.asarray(counts / count)))
            if at_the_mean
            else values(f)[None]
        )
        c = (v - ((counts * v).sum(1, keepdims=True) - v) / (count - 1)) / count
        means = (counts * c) @ (np.eye(N) - P)
        return weighted(means, chances, (counts * c**2) @ spread)

    return moments


# Integrated


@cache
def given_draws(draw: Draw, f: Loss) -> tuple[np.ndarray, ...]:
    """By group and category: its frequency, and mean and total variance of its gradient."""

    def group(uniforms):
        z = sx.gumbel.quantile(*uniforms)
        gradients = jax.vmap(lambda z: jax.grad(lambda scores: f(draw(scores, z)))(SCORES))(z)
        drawn = sx.one_hot_argmax(SCORES + z)
        counts = drawn.sum(0)
        mean = drawn.T @ gradients / counts[:, None]
        return counts / POINTS, mean, drawn.T @ ((gradients - drawn @ mean) ** 2).sum(1) / counts

    def two_groups(key):
        uniforms = sx.sobol(key, (2 * POINTS, N))
        return jax.vmap(group)([one.reshape(2, POINTS, N) for one in uniforms])

    keys = jax.random.split(jax.random.key(1), GROUPS // 2)
    moments = jax.jit(lambda keys: jax.lax.map(two_groups, keys))(keys)
    return tuple(np.asarray(one).reshape(GROUPS, *one.shape[2:]) for one in moments)


def integrated(draw: Draw, count: int = 1) -> Callable[[Loss], Moments]:
    """Over noise; of the mean over so many noises that draw the same category."""

    def moments(f):
        groups = [
            weighted(mean, share, within / count)
            for share, mean, within in zip(*given_draws(draw, f), strict=True)
        ]
        return Moments(*map(np.concatenate, zip(*groups, strict=True)))

    return moments


def relaxed(scores: jax.Array, z: jax.Array) -> jax.Array:
    return sx.softmax(scores + z, temperature=TEMPERATURE)


def hard(scores: jax.Array, z: jax.Array) -> jax.Array:
    return sx.straight_through(sx.one_hot_argmax, partial(sx.softmax, temperature=TEMPERATURE))(
        scores + z
    )


def shifted(scores: jax.Array, z: jax.Array | float = 0.0) -> jax.Array:
    return sx.interpolated(sx.one_hot_argmax, strength=STRENGTH)(scores + z)


def told(scores: jax.Array, drawn: jax.Array) -> jax.Array:
    """The oracle that answers what was drawn."""
    return drawn


def rows() -> dict[str, Callable[[Loss], Moments]]:
    return {
        "REINFORCE": reinforce(False),
        "REINFORCE, baseline E f": reinforce(True),
        PERTURBED_LOSS: perturbed_moments(False),
        "reinmax": by_key(sx.reinmax),
        "straight_through, softmax": by_draw(
            sx.straight_through(told, lambda scores, drawn: sx.softmax(scores))
        ),
        HARD: integrated(hard),
        RAO: integrated(hard, RAO_SAMPLES),
        "identity_gradient": by_draw(sx.identity_gradient(told)),
        "identity_gradient, centred only": by_draw(
            sx.identity_gradient(told, projection=lambda x: x - x.mean())
        ),
        IMPLICIT: integrated(shifted),
        f"interpolated, strength {STRENGTH:g}, no noise": fixed(shifted),
        RELAXED: integrated(relaxed),
        PERTURBED_POINT: perturbed_moments(True),
        "softmax": fixed(sx.softmax),
        "entmax": fixed(sx.entmax),
        "sparsemax": fixed(sx.sparsemax),
    }


def called() -> dict[str, Callable]:
    """For rows computed otherwise: (loss, scores, key) -> what the function differentiates."""

    def through(draw, **options):
        return lambda f, scores, key: f(draw(scores, key=key, **options))

    def in_the_oracle(f, scores, key):
        return perturbed(lambda scores: f(sx.one_hot_argmax(scores))).argmax(scores, key=key)

    perturbed = partial(sx.perturbed, noise=sx.gumbel, num_samples=PERTURBED_SAMPLES)
    return {
        PERTURBED_LOSS: in_the_oracle,
        HARD: through(sx.hard_gumbel_softmax, temperature=TEMPERATURE),
        RAO: through(sx.gumbel_rao, temperature=TEMPERATURE, num_samples=RAO_SAMPLES),
        IMPLICIT: through(sx.implicit_mle(sx.one_hot_argmax, strength=STRENGTH)),
        RELAXED: through(sx.gumbel_softmax, temperature=TEMPERATURE),
        PERTURBED_POINT: through(perturbed(sx.one_hot_argmax).argmax),
    }


def check(name: str, function: Callable, f: Loss, moments: Moments) -> None:
    """Draws of the function itself have this mean, and this variance to a tenth."""
    keys = jax.random.split(jax.random.key(2), CHECKED)
    draws = np.asarray(
        jax.jit(jax.vmap(lambda key: jax.grad(lambda scores: function(f, scores, key))(SCORES)))(
            keys
        )
    )
    error = draws.std(0) / math.sqrt(CHECKED)
    off = np.abs(draws.mean(0) - moments.mean.mean(0)) / (error + 1e-12)
    ratio = draws.var(0).sum() / moments.variance.mean()
    assert off.max() < 5, (name, off)
    assert 0.9 < ratio < 1.1, (name, ratio)


def summary(moments: Moments, truth: np.ndarray) -> dict[str, float]:
    """Bias, deviation, root mean squared error, and error of the bias, over the gradient's norm."""
    scale = float(np.linalg.norm(truth))
    bias = float(np.linalg.norm(moments.mean.mean(0) - truth)) / scale
    variance = float(moments.variance.mean()) / scale**2
    groups = len(moments.mean)
    spread = (
        math.sqrt(float(moments.mean.var(0, ddof=1).sum()) / groups) / scale if groups > 1 else 0.0
    )
    return {
        "bias": bias,
        "sd": math.sqrt(variance),
        "rmse": math.hypot(bias, math.sqrt(variance)),
        "error": spread,
    }


def figure_of(x: float) -> str:
    return "0" if x < 1e-9 else f"{x:.3f}" if x < 10 else f"{x:.1f}"


def print_table(table: dict[str, dict[str, dict[str, float]]]) -> None:
    print(
        f"\n{'over the norm of the exact gradient':38}" + "".join(f"{loss:>26}" for loss in LOSSES)
    )
    print(
        f"{'(~: integrated, the others enumerated)':38}"
        + f"{'bias':>10}{'sd':>8}{'rmse':>8}" * len(LOSSES)
    )
    for name, cells in table.items():
        numbers = [
            f"{figure_of(c['bias']):>10}{figure_of(c['sd']):>8}{figure_of(c['rmse']):>8}"
            for c in cells.values()
        ]
        print(f"{name:38}" + "".join(numbers))
    errors = [
        f"{max(cells[loss]['error'] for cells in table.values()):>10.0e}{'':16}" for loss in LOSSES
    ]
    print(f"{'largest standard error of a bias (~)':38}" + "".join(errors))


def plot(table: dict[str, dict[str, dict[str, float]]], header: str, path: Path) -> None:
    """A panel for each loss, a line for each row: bias and deviation on a log axis with 0."""
    plt = pyplot()
    figure, panels = plt.subplots(
        1, len(LOSSES), figsize=(15, 6.2), sharey=True, layout="constrained"
    )
    floor, places = 2e-3, range(len(table))
    for axes, loss in zip(panels, LOSSES, strict=True):
        cells = [row[loss] for row in table.values()]
        for kind, colour, size, label in (
            ("sd", "tab:orange", 90, "standard deviation"),
            ("bias", "tab:blue", 36, "bias"),
        ):
            at, fill = (
                [max(cell[kind], floor) for cell in cells],
                "none" if kind == "sd" else colour,
            )
            axes.scatter(
                at,
                places,
                size,
                facecolors=fill,
                edgecolors=colour,
                linewidths=2,
                label=label,
                clip_on=False,
            )
        axes.set(
            xscale="log", xlim=(floor, 100), title=loss, xlabel="over the norm of the gradient"
        )
        axes.set_xticks([floor, 1e-2, 1e-1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
        axes.minorticks_off()
        axes.grid(color="0.92")
        axes.axvline(1, color="0.6", linewidth=1)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(places, [name.removesuffix(" ~") for name in table])
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    figure.suptitle(
        f"Estimates of the gradient of E f(D), D drawn from softmax of {N} scores: {header}",
        fontsize=10,
        color="0.3",
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    header = f"Python {platform.python_version()}, jax {jax.__version__}, float64"
    print(header)
    table: dict[str, dict[str, dict[str, float]]] = {}
    functions = called()
    for name, moments_of in tqdm(rows().items(), desc="estimators", unit="row"):
        table[name] = {}
        for loss, f in LOSSES.items():
            moments = moments_of(f)
            table[name][loss] = summary(moments, exact(f))
            if name in functions:
                check(name, functions[name], f, moments)
    unbiased = {
        name: [loss for loss, cell in cells.items() if cell["bias"] < 1e-9]
        for name, cells in table.items()
    }
    assert unbiased["straight_through, softmax"] == ["linear"]
    assert unbiased["reinmax"] == ["linear", "quadratic"]
    print_table(table)

    root = Path(__file__).parent.parent
    results, image = (
        root / "benchmarks" / "results" / f"estimators-jax{jax.__version__}.json",
        root / "docs" / "estimators.png",
    )
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps({"header": header, "rows": table}, indent=1) + "\n")
    plot(table, header, image)
    print(f"\n{results}\n{image}")


if __name__ == "__main__":
    main()
