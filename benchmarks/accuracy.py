"""How exact a choice is: largest errors of softmaxx and its peers against float64.

The reference is written in NumPy and independent of the library. It gets the rounded scores, so the
figures measure the solution and not the rounding of its input. Each figure is the largest over
n = 16 to 10^6 and scales 0.1, 1 and 10, by dtype and by offset of the scores. Printed are the error
of an entry, |Σp − k|, and the gradient's ‖error‖/‖gradient‖ for a random cotangent.

A last table has losses of labels where training ends: the gradient's ‖error‖/‖gradient‖ for the
right one of 32,000 classes with p from ½ to 1 − 10⁻⁶, in float32 to 1 − 10⁻¹², beside optax.

The result itself is rounded to the dtype. So half precision cannot do better than its spacing, nor
can a sum of n rounded entries. Rows with an entry exactly on the boundary of a sparse choice have
no gradient and count for the value only. Peers in JAX get the default float in place of others.

    pip install -e . optax jaxopt tqdm    # and torch with entmax, softjax (Python 3.12)
    python benchmarks/accuracy.py         # JAX_ENABLE_X64=1 adds float64
    python benchmarks/accuracy.py --quick # n up to 1000, to build/benchmarks
"""

import json
import platform
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from columns import BASELINE, OURS, Calls, Column, calls_of, peers, to_numpy
from measuring import options_of, tqdm

import softmaxx as sx

DTYPES = ["bfloat16", "float16", "float32"] + ["float64"] * jax.config.jax_enable_x64
OFFSETS, SCALES, SIZES = (0.0, 1e3, 1e5), (0.1, 1.0, 10.0), (16, 1000, 32_000, 1_000_000)
ENTRIES = 64_000  # rows are added to small n up to so many entries
ERRORS = {
    "value": "largest error of an entry",
    "sum": "|Σp − k|",
    "gradient": "‖error of the gradient‖ / ‖gradient‖",
}


def bisect(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where the decreasing `excess` changes sign, until float64 cannot split the bracket."""
    while low < (tau := (low + high) / 2) < high:
        low, high = (tau, high) if excess(tau) > 0 else (low, tau)
    return low


def choice(z: np.ndarray, alpha: float, k: int) -> tuple[np.ndarray, bool]:
    """The exact choice of one row in float64, and whether it has a derivative."""
    z = z - z.max()
    if alpha == 1:
        return np.exp(z) / np.exp(z).sum(), True
    if alpha < 2:
        s, power = (alpha - 1) * z, 1 / (alpha - 1)
        inside = s[s > -1]  # τ ≥ −1, since no entry of p is above 1
        tau = bisect(lambda tau: (np.maximum(inside - tau, 0) ** power).sum() - 1, -1.0, 0.0)
        p = np.maximum(s - tau, 0) ** power
        return p / p.sum(), True
    if k == 1:
        u = np.sort(z)[::-1]
        thresholds = (np.cumsum(u) - 1) / np.arange(1, u.size + 1)
        t = z - thresholds[np.nonzero(u > thresholds)[0][-1]]
        return np.maximum(t, 0), abs(t).min() > 1e-12
    t = z - bisect(lambda tau: np.clip(z - tau, 0, 1).sum() - k, z.min() - 1, 0.0)
    return np.clip(t, 0, 1), min(abs(t).min(), abs(t - 1).min()) > 1e-12


def gradient(p: np.ndarray, g: np.ndarray, alpha: float, k: int) -> np.ndarray:
    """The exact pullback of one row: w ⊙ (g − Σwg/Σw), w = p^{2−α} on the support, 0 at caps."""
    inside = (p > 0) & ((p < 1) | (k == 1))
    w = np.where(inside, np.where(inside, p, 1) ** (2 - alpha), 0)
    return w * (g - (w @ g) / max(w.sum(), np.finfo(float).tiny))


def reference(
    z: np.ndarray, g: np.ndarray, alpha: float, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The choice of each row, its pullback, and whether it has one: not on a corner. `[rows, 1]`"""
    p, smooth = zip(*(choice(row, alpha, k) for row in z), strict=True)
    return (
        np.stack(p),
        np.stack([gradient(*rows, alpha, k) for rows in zip(p, g, strict=True)]),
        np.array(smooth)[:, None],
    )


def scores_and_cotangent(
    n: int, scale: float, offset: float, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rounded to the dtype. Scores are not centred: near an offset few different ones are left."""
    rng = np.random.default_rng(n)
    x, g = rng.standard_normal((2, min(64, max(1, ENTRIES // n)), n))
    return (offset + scale * x).astype(jnp.dtype(dtype)), g.astype(jnp.dtype(dtype))


def errors(
    calls: Calls,
    x: np.ndarray,
    g: np.ndarray,
    k: int,
    p: np.ndarray,
    dx: np.ndarray,
    smooth: np.ndarray,
) -> dict:
    value, slope = (to_numpy(array) for array in calls.both(calls.place(x), calls.place(g)))
    miss, size = (float(np.linalg.norm(np.where(smooth, array, 0))) for array in (slope - dx, dx))
    relative = miss / size if size else 0.0 if miss == 0 else float("inf")
    return {
        "value": float(abs(value - p).max()),
        "sum": float(abs(value.sum(-1) - k).max()),
        "gradient": relative,
    }


def measure(columns: dict[str, Column], calls: dict[str, Calls], cases: list[tuple]) -> list[dict]:
    """One record for each case `(dtype, offset, scale, n)` and column."""
    records = []
    for dtype, offset, scale, n in tqdm(cases, desc="accuracy", unit="case"):
        x, g = scores_and_cotangent(n, scale, offset, dtype)
        z, cotangent, exact = x.astype(np.float64), g.astype(np.float64), {}
        for name, column in columns.items():
            kind = column.alpha, column.k
            if kind not in exact:
                exact[kind] = reference(z, cotangent, *kind)
            case = {"dtype": dtype, "offset": offset, "scale": scale, "n": n, "column": name}
            records.append(case | errors(calls[name], x, g, column.k, *exact[kind]))
    return records


def print_tables(records: list[dict], names: list[str]) -> None:
    heads = list(dict.fromkeys((r["dtype"], r["offset"]) for r in records))
    for error, title in ERRORS.items():
        print(
            f"\n{title + ', offset':46}"
            + "".join(
                f"{dtype + f' {offset:.0e}'.replace('e+0', 'e'):>14}" for dtype, offset in heads
            )
        )
        for name in names:
            mine = [
                [
                    r[error]
                    for r in records
                    if (r["column"], r["dtype"], r["offset"]) == (name, *head)
                ]
                for head in heads
            ]
            print(f"{name:46}" + "".join(f"{np.max(cell):>14.1e}" for cell in mine))


def print_bfloat16(records: list[dict], names: list[str]) -> None:
    print(
        f"\n{'sparsemax of bfloat16, n = 2048: ' + ERRORS['gradient'] + ', scale':76}"
        + "".join(f"{s:>10}" for s in SCALES)
    )
    for name in names:
        print(
            f"{name:76}"
            + "".join(f"{r['gradient']:>10.1e}" for r in records if r["column"] == name)
        )


LOSSES = {
    "softmaxx entmax_loss, α = 1": (1.0, lambda x, y: sx.entmax_loss(x, y, alpha=1.0)),
    "optax softmax_cross_entropy_with_integer_labels": (
        1.0,
        optax.softmax_cross_entropy_with_integer_labels,
    ),
    "softmaxx entmax_loss, α = 1.5": (1.5, sx.entmax_loss),
    "softmaxx sparsemax_loss": (2.0, sx.sparsemax_loss),
    "optax multiclass_sparsemax_loss, which takes no half precision: widened": (
        2.0,
        lambda x, y: optax.losses.multiclass_sparsemax_loss(
            x.astype(jnp.promote_types(x.dtype, np.float32)), y
        ),
    ),
}


def left_over(below: np.ndarray, alpha: float) -> np.ndarray:
    """p of the wrong classes, for their scores less that of the right one: exact where small."""
    if alpha == 1:
        e = np.exp(below)
        return e / (1 + e.sum())
    s, power = np.maximum(1 + (alpha - 1) * below, 0), 1 / (alpha - 1)

    def excess(log_u):
        u = np.exp(log_u)
        others = (np.maximum(s - u, 0) ** power).sum()
        return others + np.expm1(power * np.log1p(-u))

    return np.maximum(s - np.exp(bisect(excess, -80.0, -1e-9)), 0) ** power


def right_class(left: float, n: int, alpha: float, dtype: str) -> np.ndarray:
    """Scores of which the first has p = 1 − left, before they are rounded."""
    others = 0.1 * np.random.default_rng(n).standard_normal(n - 1)
    below = others - others.max()
    margin = bisect(lambda margin: left_over(below - margin, alpha).sum() - left, 0.0, 60.0)
    return np.r_[others.max() + margin, others].astype(jnp.dtype(dtype))


def near_the_optimum(n: int) -> list[dict]:
    """One record for each dtype, 1 − p and loss."""
    records = []
    for dtype in DTYPES:
        for exponent in (0.3, 1, 2, 3, 4, 6, *((9, 12) if dtype in ("float32", "float64") else ())):
            for name, (alpha, loss) in LOSSES.items():
                x = right_class(10.0**-exponent, n, alpha, dtype)
                p = left_over(x[1:].astype(float) - float(x[0]), alpha)
                exact = np.r_[-p.sum(), p]
                slope = jax.jit(
                    jax.grad(lambda x, loss=loss: loss(x[None], np.zeros(1, int)).sum())
                )
                miss = np.linalg.norm(np.asarray(slope(jnp.asarray(x))).astype(float) - exact)
                case = {"dtype": dtype, "left": 10.0**-exponent, "column": name}
                size = np.linalg.norm(exact)
                records.append(case | {"gradient": float(miss / size) if size else float(miss)})
    return records


def print_near_the_optimum(records: list[dict]) -> None:
    for dtype in DTYPES:
        mine = [r for r in records if r["dtype"] == dtype]
        lefts = list(dict.fromkeys(r["left"] for r in mine))
        print(f"\n{dtype + ', ' + ERRORS['gradient'] + ', 1 − p of the right class':76}", end="")
        print("".join(f"{left:>9.0e}" for left in lefts))
        for name in LOSSES:
            print(f"{name:76}", end="")
            print("".join(f"{r['gradient']:>9.1e}" for r in mine if r["column"] == name))


def main() -> None:
    parser = options_of(__doc__, "n up to 1000")
    parser.add_argument("--no-peers", action="store_true", help="jax.nn.softmax and softmaxx only")
    options = parser.parse_args()
    quick = options.sizes == "quick"
    ours = [column for column in OURS if column.alpha is not None]
    columns = {
        column.name: column for column in [BASELINE, *ours, *([] if options.no_peers else peers())]
    }
    calls = {name: calls_of(column) for name, column in columns.items()}
    sizes = [n for n in SIZES if n <= (1000 if quick else max(SIZES))]
    cases = [
        (dtype, offset, s, n)
        for dtype in DTYPES
        for offset in OFFSETS
        for s in SCALES
        for n in sizes
    ]
    cases = [
        case for case in cases if case[1] < float(jnp.finfo(case[0]).max)
    ]  # float16 ends at 65504
    device = jax.devices()[0].device_kind
    result = {"header": f"Python {platform.python_version()}, jax {jax.__version__}, {device}"}
    print(result["header"])

    result["records"] = measure(columns, calls, cases)
    print_tables(result["records"], list(columns))
    projections = {
        name: column for name, column in columns.items() if column.function == "sparsemax"
    }
    result["bfloat16"] = measure(
        projections, calls, [("bfloat16", 0.0, scale, 2048) for scale in SCALES]
    )
    print_bfloat16(result["bfloat16"], list(projections))

    result["near the optimum"] = near_the_optimum(1000 if quick else 32_000)
    print_near_the_optimum(result["near the optimum"])

    folder = Path(__file__).parent.parent / ("build/benchmarks" if quick else "benchmarks/results")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"accuracy-jax{jax.__version__}{'-x64' * jax.config.jax_enable_x64}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")  # nan and inf as Python reads them
    print(f"\n{path}")


if __name__ == "__main__":
    main()
