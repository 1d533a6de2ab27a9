"""Wrong input: each error names the function, the argument, what it got and what to do.

Arrays are NumPy's and shapes are found by `jax.eval_shape`, so that next to nothing is compiled.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(0)
X = np.zeros((2, 3))


def perturbed_argmax(scores, **kwargs):
    return sx.perturbed_argmax(scores, **{"key": KEY, **kwargs})


SCORED: dict[str, Callable] = {
    "softmax": sx.softmax,
    "sparsemax": sx.sparsemax,
    "entmax": sx.entmax,
    "one_hot_argmax": sx.one_hot_argmax,
    "soft_argmax": sx.soft_argmax,
    "sparse_argmax": sx.sparse_argmax,
    "perturbed_argmax": perturbed_argmax,
}
READING: dict[str, Callable] = {
    "expected_index": sx.expected_index,
    "expected_spread": sx.expected_spread,
}
WITH_POSITIONS = READING | {
    name: SCORED[name] for name in ["soft_argmax", "sparse_argmax", "perturbed_argmax"]
}
named = pytest.mark.parametrize("name", [*SCORED, *READING])


def function(name):
    return (SCORED | READING)[name]


def argument(name):
    return "choice" if name in READING else "scores"


@pytest.mark.parametrize("name", SCORED)
def test_a_wrong_where(name):
    with pytest.raises(
        ValueError,
        match=f"{name}: where has shape \\(4,\\); pass one that broadcasts to the scores' "
        "\\(2, 3\\)",
    ):
        function(name)(X, where=np.ones(4, bool))
    with pytest.raises(ValueError, match=f"{name}: where has shape \\(5, 2, 3\\)"):
        function(name)(X, where=np.ones((5, 2, 3), bool))
    with pytest.raises(
        TypeError,
        match=f"{name}: where has dtype int64; pass booleans, for numbers where=numbers != 0",
    ):
        function(name)(X, where=np.ones(3, int))
    with pytest.raises(TypeError, match=f"{name}: where is a list; pass an array of booleans"):
        function(name)(X, where=[True, False, True])


@named
def test_scores_that_are_no_real_numbers(name):
    complex_numbers = jnp.asarray(np.ones((2, 3), np.complex64))
    eight_bits = jnp.asarray(np.ones(3, jnp.float8_e4m3fn))
    for wrong, said in [
        ("abc", "is a str; pass an array"),
        ([1.0, 2.0], "is a list; pass an array, jnp.asarray"),
        (None, "is a NoneType; pass an array"),
        (np.array(["a", "b"]), "holds <U1; pass an array of real numbers"),
        (np.array(["2020-01-01"], "datetime64[D]"), "holds datetime64"),
        (np.ones(3, np.longdouble), "holds float128; pass an array of real numbers up to 64 bits"),
        (complex_numbers, "has dtype complex64; pass real numbers in float16"),
        (eight_bits, "has dtype float8_e4m3fn; pass real numbers in float16"),
    ]:
        with pytest.raises(TypeError, match=f"^{name}: {argument(name)} {said}"):
            function(name)(wrong)


@named
def test_a_wrong_axis(name):
    for axis, error, said in [
        (2, ValueError, "axis=2 is out of range for the shape \\(2, 3\\); pass -2 <= axis < 2"),
        (-3, ValueError, "axis=-3 is out of range"),
        ((0, 0), ValueError, "axis=\\(0, 0\\) names an axis of 2 twice; list each once"),
        ((1, -1), ValueError, "axis=\\(1, -1\\) names an axis of 2 twice"),
        ((), ValueError, "axis=\\(\\) names no axis; pass an int"),
        (1.0, TypeError, "axis=1.0 is not an int; pass an int or a tuple of ints"),
        ("x", TypeError, "axis='x' is not an int"),
    ]:
        with pytest.raises(error, match=f"^{name}: {said}"):
            function(name)(X, axis=axis)
    with pytest.raises(
        ValueError,
        match=f"^{name}: axis=-1 is out of range for the shape \\(\\); pass an array of at least "
        "one dimension",
    ):
        function(name)(np.asarray(1.0))
    with pytest.raises(
        TypeError,
        match=f"^{name}: axis is traced; .* functools.partial\\(softmaxx.{name}, axis=0\\)",
    ):
        jax.eval_shape(lambda axis: function(name)(X, axis=axis), 0)
    with pytest.raises(ValueError, match=f"^{name}: axis 1 of the shape \\(2, 0\\) is empty"):
        function(name)(np.zeros((2, 0)))


@pytest.mark.parametrize(
    ("name", "hyper", "least"),
    [
        (name, "temperature", 0)
        for name in ["softmax", "sparsemax", "entmax", "soft_argmax", "sparse_argmax"]
    ]
    + [("entmax", "alpha", 1), ("sparse_argmax", "alpha", 1), ("perturbed_argmax", "sigma", 0)],
)
def test_a_wrong_temperature_alpha_or_sigma(name, hyper, least):
    for wrong in [(4,), (2, 3), (3,), (5, 2, 1)]:  # one for each choice is [2, 1]
        with pytest.raises(
            ValueError,
            match=f"{name}: {hyper} has shape .* one for each choice, broadcastable to \\(2, 1\\)",
        ):
            function(name)(X, **{hyper: np.ones(wrong)})
    with pytest.raises(
        ValueError, match=f"^{name}: {hyper}=-1 is below {least}; pass {hyper} >= {least}"
    ):
        function(name)(X, **{hyper: -1.0})
    for wrong in ["1", None, 1j]:
        with pytest.raises(TypeError, match=f"^{name}: {hyper} (is a|has dtype)"):
            function(name)(X, **{hyper: wrong})


@pytest.mark.parametrize(
    "call", [sx.entmax, sx.threshold, sx.sparse_argmax], ids=lambda f: f.__name__
)
def test_an_alpha_below_one_is_refused_with_the_reason(call):
    reason = (
        "Below 1 no weight is 0, .*; for flatter dense weights raise the temperature of softmax"
    )
    for alpha in [0.5, np.array([[1.5], [0.99]])]:
        with pytest.raises(ValueError, match=f"{call.__name__}: alpha=0.* is below 1; .*{reason}"):
            call(X, alpha=alpha)
    with pytest.raises(ValueError, match=reason):
        sx.tsallis(0.5)
    assert np.isnan(jax.jit(lambda a: call(X, alpha=a))(0.5)).all()


@pytest.mark.parametrize(
    ("given", "remedy"),
    [((2,), "[..., None, None, None]"), ((4,), "[..., None, None]"), ((2, 4), "[..., None, None]")],
)
def test_the_remedy_for_one_alpha_per_head(given, remedy):
    scores, alpha = np.ones((2, 4, 5, 3)), np.ones(given)
    said = f"broadcastable to (2, 4, 5, 1), the scores' shape with 1 along the axis, alpha{remedy}"
    with pytest.raises(ValueError, match=re.escape(said)):
        sx.entmax(scores, alpha=alpha)
    indexed = eval(f"alpha{remedy}", {"alpha": alpha})
    assert jax.eval_shape(lambda x: sx.entmax(x, alpha=indexed), scores).shape == scores.shape


@pytest.mark.parametrize("name", WITH_POSITIONS)
def test_wrong_positions(name):
    for wrong in [(4,), (3, 3), (2, 1), (), (1, 2, 3)]:
        with pytest.raises(
            ValueError, match=f"^{name}: positions of axis 1 have shape .*; pass \\(3,\\)"
        ):
            function(name)(X, positions=np.ones(wrong))
    for wrong in [np.ones(3), (np.ones(2),), (np.ones(2), np.ones(3), np.ones(3))]:
        with pytest.raises(
            ValueError,
            match=f"^{name}: positions is a .*; pass a tuple of 2 arrays, one for each axis",
        ):
            function(name)(X, axis=(0, 1), positions=wrong)
    with pytest.raises(TypeError, match=f"^{name}: positions is a list; pass an array"):
        function(name)(X, positions=[1.0, 2.0, 3.0])


def test_a_wrong_number_of_samples():
    for call, name in [
        (perturbed_argmax, "perturbed_argmax"),
        (lambda _, **kw: sx.perturbed(sx.one_hot_argmax, **kw), "perturbed"),
    ]:
        for wrong in [0, -3]:
            with pytest.raises(
                ValueError,
                match=f"^{name}: num_samples={wrong} draws nothing; pass num_samples >= 1",
            ):
                call(X, num_samples=wrong)
        for wrong in [2.0, "8", None]:
            with pytest.raises(
                TypeError, match=f"^{name}: num_samples=.* is not an int; it fixes a shape"
            ):
                call(X, num_samples=wrong)


def test_a_wrong_key():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=2)
    for call, name in [
        (sx.perturbed_argmax, "perturbed_argmax"),
        (smooth.argmax, "perturbed"),
        (smooth.value, "perturbed"),
    ]:
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'key'"):
            call(X)  # pyright: ignore[reportCallIssue]
        for wrong in [None, 0, "seed"]:
            with pytest.raises(
                TypeError, match=f"^{name}: key is a .*; pass key=jax.random.key\\(seed\\)"
            ):
                call(X, key=wrong)
        with pytest.raises(TypeError, match=f"^{name}: key has dtype float64, that is no key"):
            call(X, key=np.ones(2))
        with pytest.raises(
            ValueError, match=f"^{name}: key has shape \\(3,\\).* for several use jax.vmap"
        ):
            call(X, key=jax.random.split(KEY, 3))
        older = jax.random.PRNGKey(0)
        assert jax.eval_shape(lambda key, call=call: call(X, key=key), older).dtype == jnp.float64


def test_a_wrong_sigma_of_perturbed():
    with pytest.raises(ValueError, match=r"^perturbed: sigma=-1 is below 0; pass sigma >= 0"):
        sx.perturbed(sx.one_hot_argmax, sigma=-1.0)
    for wrong in ["a", None, 1j]:
        with pytest.raises(TypeError, match=r"^perturbed: sigma (is a|has dtype)"):
            sx.perturbed(sx.one_hot_argmax, sigma=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError,
        match="perturbed: sigma has shape \\(4,\\); pass one that broadcasts to the scores' "
        "\\(2, 3\\)",
    ):
        sx.perturbed(sx.one_hot_argmax, sigma=np.ones(4)).argmax(X, key=KEY)


def test_a_wrong_noise():
    for wrong, said in [("gumbel", "'gumbel'"), (None, "None"), (jax.random.normal, "a function")]:
        for name, call in [("perturbed", sx.perturbed), ("perturbed_argmax", perturbed_argmax)]:
            with pytest.raises(
                TypeError, match=f"^{name}: noise is {said}; pass sx.normal, sx.gumbel or sx.Noise"
            ):
                call(sx.one_hot_argmax if name == "perturbed" else X, noise=wrong)
    plain = sx.normal._replace(quantile=lambda u: u)
    for name, call in [
        ("perturbed", lambda: sx.perturbed(sx.one_hot_argmax, noise=plain)),
        ("implicit_mle", lambda: sx.implicit_mle(sx.one_hot_argmax, strength=1.0, noise=plain)),
    ]:
        with pytest.raises(
            TypeError,
            match=rf"^{name}: noise.quantile has the signature \(u\), too many .* pass a function "
            r"\(u, v\), the uniforms and their complements v = 1 - u",
        ):
            call()
    short = sx.normal._replace(quantile=lambda u, v: u[:3])
    with pytest.raises(
        ValueError,
        match=r"noise.quantile returned the shape \(3, 6\); return the shape asked for, \(8, 6\)",
    ):
        sx.perturbed(sx.one_hot_argmax, noise=short, num_samples=8).argmax(X, key=KEY)


def test_an_instance_without_entries():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=2)
    estimators = [
        ("perturbed", lambda x: smooth.argmax(x, key=KEY)),
        ("regularized", sx.regularized(sx.sparsemax, lambda p: (p * p).sum()).value),
        ("interpolated", sx.interpolated(sx.one_hot_argmax, strength=1.0)),
        ("identity_gradient", sx.identity_gradient(sx.one_hot_argmax)),
    ]
    for name, call in estimators:
        with pytest.raises(
            ValueError,
            match=rf"^{name}: scores has the shape \(0, 5\), no entries; an instance needs at "
            "least one, for a batch that may be empty use jax.vmap",
        ):
            call(np.zeros((0, 5)))


def test_a_wrong_sampler_and_batch_size():
    with pytest.raises(
        TypeError,
        match=r"perturbed: sampler is 'sobol'; pass sx.independent, sx.sobol or sx.Sampler",
    ):
        sx.perturbed(sx.one_hot_argmax, sampler="sobol")  # pyright: ignore[reportArgumentType]
    for count, match in [
        (1, r"sampler.draw returned float64\[8, 3\]; return two arrays .* complements 1 - u"),
        (2, r"sampler.draw returned the shape \(8, 3\); return the shape asked .* \(8, 1, 6\)"),
        (3, r"sampler.draw returned a tuple; return two arrays"),
    ]:

        def draw(key, shape, dtype, count=count):
            drawn = (jnp.zeros(3, dtype),) * count
            return drawn if count > 1 else drawn[0]

        narrow = sx.independent._replace(draw=draw)
        with pytest.raises(ValueError, match=match):
            sx.perturbed(sx.one_hot_argmax, sampler=narrow, num_samples=8).argmax(X, key=KEY)
    for sampler in [sx.antithetic, sx.latin_hypercube, sx.sobol]:
        with pytest.raises(
            ValueError, match=r"perturbed: 7 samples are no multiple of .* pass num_samples=6 or 8"
        ):
            sx.perturbed(sx.one_hot_argmax, sampler=sampler, num_samples=7)
    with pytest.raises(
        ValueError, match=r"batch_size=10 splits the groups of 32 rows .*; pass a multiple of 32\."
    ):
        sx.perturbed(sx.one_hot_argmax, sampler=sx.sobol, num_samples=64, batch_size=10)
    with pytest.raises(
        ValueError, match=r"batch_size=16 splits the groups of 32 rows .*group_size=lambda n: 16"
    ):
        sx.perturbed(sx.one_hot_argmax, sampler=sx.sobol, num_samples=64, batch_size=16)
    with pytest.raises(ValueError, match=r"perturbed: batch_size=0 draws nothing"):
        sx.perturbed(sx.one_hot_argmax, batch_size=0)
    with pytest.raises(
        ValueError, match=r"sampler.group_size\(128\) is 0; return an int of at least 1"
    ):
        sx.perturbed(sx.one_hot_argmax, sampler=sx.sobol._replace(group_size=lambda n: 0))


def test_an_oracle_that_has_no_hash():
    class Unhashable:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, scores):
            return scores

    with pytest.raises(
        TypeError,
        match=r"^perturbed: oracle is a Unhashable, that has no hash; wrap it in a function",
    ):
        sx.perturbed(Unhashable())


def test_errors_are_raised_while_tracing_too():
    with pytest.raises(ValueError, match=r"^sparsemax: axis=2 is out of range"):
        jax.eval_shape(lambda x: sx.sparsemax(x, axis=2), X)
    with pytest.raises(ValueError, match="softmax: temperature has shape"):
        jax.eval_shape(jax.grad(lambda x: sx.softmax(x, temperature=np.ones(7)).sum()), X)
