"""Estimators: the same hard forward, another backward, where the derivative of the oracle itself is 0."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check_function, _check_oracle, _oracles, _threshold
from softmaxx._types import Array, Number, Oracle, Tree


def straight_through(hard: Callable[..., Tree], soft: Callable[..., Tree]) -> Callable[..., Tree]:
    r"""Computes hard(θ), with the gradient (∂soft/∂θ)ᵀg for a cotangent g: the backward pass takes hard for soft.

    The value is that of `hard` to the bit: `soft` runs in the backward pass alone, and what it returns reaches no value.
    (The sum soft + stop_gradient(hard − soft) rounds, and is nan where soft is.)

    Args:
      hard: `(scores, *args, **kwargs)` → a floating array, or a tree of arrays; it needs no derivative.
      soft: called alike, → the same shapes. Both get the same arguments: with a `key=` they can draw the same noise, in the
        dtype of the scores.

    Returns:
      `f(scores, *args, **kwargs)`, of the shape and dtype of `hard`; args and kwargs are arrays, or trees of them. All floating
      ones are differentiated by `soft`; integers and keys pass no derivative. Settings go in by `functools.partial`.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. Where soft is nan, so is the gradient. It is biased,
      unless the loss is linear in the answer and soft is the mean of hard.

    Raises:
      TypeError: functions that are not callable, close over a traced value or do not return floating arrays.
      ValueError: a `soft` that returns other shapes than `hard`.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.straight_through(sx.one_hot_argmax, sx.sparsemax)
      >>> scores, costs = jnp.array([1.0, 1.5, 0.0]), jnp.array([1.0, 2.0, 3.0])
      >>> print(choose(scores))
      [0. 1. 0.]
      >>> print(jax.grad(lambda x: costs @ choose(x))(scores))
      [-0.5  0.5  0. ]

    Reference:
      Bengio, Léonard and Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013; with noise: Jang, Gu
      and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, section 2.2.
    """
    function = "straight_through"
    _check_function.function(function, "hard", hard)
    _check_function.function(function, "soft", soft)

    def choose(scores: Tree, *args: Any, **kwargs: Any) -> Tree:
        scores = _check_oracle.scores(function, scores)
        wanted, got = (
            _check_function.floating(function, name, _check_function.shapes(function, name, of, scores, args, kwargs))
            for name, of in (("hard", hard), ("soft", soft))
        )
        _check_function.same_shapes(function, "soft", got, "hard", wanted)
        held, held_args, held_kwargs = lax.stop_gradient((scores, args, kwargs))
        return surrogate(partial(_by_soft, soft), hard(held, *held_args, **held_kwargs), (scores, args, kwargs))

    return choose


def _by_soft(soft: Callable, operands: tuple, g: Tree) -> tuple:
    out, pullback = jax.vjp(lambda scores, args, kwargs: soft(scores, *args, **kwargs), *operands)
    return pullback(_oracles.in_dtypes_of(out, g))


def _centred_and_normalised(scores: Tree) -> Tree:
    """(θ − mean θ)/‖θ − mean θ‖ over all entries that are not infinite; constant where there is nothing to normalise."""
    leaves, tree = jax.tree.flatten(scores)
    dtype = _threshold.widest([x.dtype for x in leaves])
    finite = [~jnp.isinf(x) for x in leaves]
    # Shifted by the largest and divided by the spread, which the projection does not depend on, but its rounding does.
    halves = [jnp.where(f, x, 0).astype(dtype) / 2 for x, f in zip(leaves, finite, strict=True)]  # 3e38 − (−3e38) overflows
    peak = lax.stop_gradient(_largest([jnp.where(f, x, -jnp.inf) for x, f in zip(halves, finite, strict=True)]))
    shifted = [jnp.where(f, x - peak, 0) for x, f in zip(halves, finite, strict=True)]
    spread = lax.stop_gradient(_largest([abs(x) for x in shifted]))
    constant = spread < jnp.finfo(dtype).tiny
    scaled = [jnp.where(constant, 0, x / jnp.where(constant, 1, spread)) for x in shifted]
    mean = _total(scaled) / jnp.maximum(_total([f.astype(dtype) for f in finite]), 1)
    centred = [jnp.where(f, x - mean, 0) for x, f in zip(scaled, finite, strict=True)]
    square = _total([x * x for x in centred])
    norm = jnp.sqrt(jnp.where(square == 0, 1, square))
    return tree.unflatten([jnp.where(f, x / norm, 0) for x, f in zip(centred, finite, strict=True)])


def identity_gradient(oracle: Oracle, *, projection: Callable[[Tree], Tree] = _centred_and_normalised) -> Callable[..., Tree]:
    r"""Computes y(θ), with the gradient (∂P/∂θ)ᵀg for a cotangent g: that of a projection P of the scores, as if y were it.

    The default P(θ) = (θ − mean θ)/‖θ − mean θ‖ removes from g what no answer depends on: a shift and the scale of the scores.

    Args:
      oracle: `(scores, *args)` → floating numbers in the scores' shape, for one instance; it needs no derivative.
      projection: scores → an array or tree of their shape, applied to one instance in at least float32. Dividing by the norm,
        `lambda x: x / jnp.linalg.norm(x)`, is sound for every oracle, since an argmax does not depend on the scale. Centring,
        `lambda x: x - x.mean()`, is sound if all answers have the same sum, as one-hot vectors and rankings do; paths of
        different lengths do not. `lambda x: x` passes g on.

    Returns:
      `f(scores, *args)`, of the scores' shape and dtype, for one instance, an array or a tree of arrays that are projected
      together; for a batch use `jax.vmap`. In its args a differentiable oracle has its own derivative. No further oracle call.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. With the default, infinite scores take no part and
      get gradient 0, constant scores get gradient 0, and a nan makes all of the gradient nan. The gradient is of order ‖g‖/‖θ‖.

    Raises:
      TypeError: an oracle or projection that is not callable, closes over a traced value or does not return floating arrays.
      ValueError: an oracle or projection that returns another shape than the scores'.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.identity_gradient(sx.one_hot_argmax, projection=lambda x: x - x.mean())
      >>> costs = jnp.array([1.0, 2.0, 6.0])
      >>> print(jax.grad(lambda x: costs @ choose(x))(jnp.array([1.0, 1.5, 0.0])))
      [-2. -1.  3.]

    Reference:
      Sahoo, Paulus, Vlastelica, Musil, Kuleshov and Martius, Backpropagation through Combinatorial Algorithms: Identity with
      Projection Works, ICLR 2023, section 3.
    """
    function = "identity_gradient"
    _check_oracle.oracle(function, oracle)
    _check_function.function(function, "projection", projection)

    def choose(scores: Tree, *args: Any) -> Tree:
        theta, out = like_scores(function, oracle, scores, args)
        projected = _check_function.shapes(function, "projection", projection, theta, (), {})
        _check_function.floating(function, "projection", projected)
        _check_function.same_shapes(function, "projection", projected, "the scores", theta)
        answer = oracle(lax.stop_gradient(theta), *args)
        return _oracles.in_dtypes_of(out, surrogate(partial(_by_projection, projection), answer, theta))

    return choose


def _by_projection(projection: Callable, theta: Tree, g: Tree) -> Tree:
    out, pullback = jax.vjp(projection, theta)
    return pullback(_oracles.in_dtypes_of(out, g))[0]


class AdaptiveStrengthState(NamedTuple):
    """What `adaptive_strength` keeps: λ‖g‖/‖θ‖, and the running mean of how many scores of an instance have a gradient."""

    strength: Array
    nonzero: Array


def interpolated(oracle: Oracle, *, strength: Number | AdaptiveStrengthState) -> Callable[..., Tree]:
    r"""Computes y(θ), with the gradient (y(θ) − y(θ − λg))/λ for a cotangent g: how the answer changes where the loss pulls.

    It is the gradient of a piecewise affine interpolation of the loss that is linearised by g. (The paper's solvers minimise
    ⟨costs, y⟩: with costs = −θ its gradient in the costs, (y(costs + λg) − y(costs))/λ, is minus this one.)

    Args:
      oracle: `(scores, *args)` → the maximiser, floating numbers in the scores' shape, for one instance; no derivative needed.
      strength: λ > 0, a number, which may be traced; the larger, the more scores get a gradient. λg should be of the order of
        the scores: or pass the state of `adaptive_strength`, then λ = strength·‖θ‖/‖g‖ for each instance.

    Returns:
      `f(scores, *args)`, of the scores' shape and dtype, for one instance, an array or a tree of arrays; for a batch use
      `jax.vmap`. The oracle is called once, and once more in the backward pass, in at least float32. In its args a
      differentiable oracle has its own derivative; the strength gets none.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. The gradient is 0 where λg moves no answer, as for
      λ → 0, g = 0, or scores of 0 and an adaptive strength; a traced λ of 0 gives 0, a negative one nan. Infinite scores stay.

    Raises:
      TypeError: an oracle that is not callable, closes over a traced value or does not return floating arrays.
      ValueError: a strength that is not positive and finite, or no single number; an oracle that returns another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.interpolated(sx.one_hot_argmax, strength=2.0)
      >>> costs = jnp.array([1.0, 2.0, 6.0])
      >>> print(jax.grad(lambda x: costs @ choose(x))(jnp.array([1.0, 1.5, 0.0])))  # the first costs less
      [-0.5  0.5  0. ]

    Reference:
      Vlastelica, Paulus, Musil, Martius and Rolínek, Differentiation of Blackbox Combinatorial Solvers, ICLR 2020, section 3.
    """
    function = "interpolated"
    _check_oracle.oracle(function, oracle)
    if not isinstance(strength, AdaptiveStrengthState):
        _check_oracle.strength(function, strength)

    def choose(scores: Tree, *args: Any) -> Tree:
        theta, out = like_scores(function, oracle, scores, args)
        answer = oracle(lax.stop_gradient(theta), *args)
        return _oracles.in_dtypes_of(out, surrogate(partial(_by_step, oracle), answer, (theta, answer, args, strength)))

    return choose


def _by_step(oracle: Oracle, operands: tuple, g: Tree) -> tuple:
    theta, answer, args, strength = operands
    size, target = step(strength, theta, g)
    return slope(size, theta, answer, oracle(target, *args)), None, None, None


# What the estimators are made of


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def surrogate(backward: Callable[[Any, Tree], Any], answer: Tree, operands: Any) -> Tree:
    """The answer; a cotangent g goes on to what it was made of, and to the operands goes backward(operands, g)."""
    return answer


def _surrogate_forward(backward, answer, operands):
    # By the rule again: forward mode over this pass is then refused too, where it would hold the answer and be wrong.
    return surrogate(backward, answer, operands), operands


def _surrogate_backward(backward, operands, g):
    return g, backward(operands, g)


surrogate.defvjp(_surrogate_forward, _surrogate_backward)


def like_scores(function: str, oracle: Oracle, scores: Tree, args: tuple) -> tuple[Tree, Tree]:
    """The scores in the dtype to compute in, and what the oracle answers, which is of their shape."""
    scores = _check_oracle.scores(function, scores)
    out = _check_oracle.answer(function, oracle, scores, args)
    _check_function.same_shapes(function, "oracle", out, "the scores", scores)
    return jax.tree.map(_threshold.working, scores), out


def step(strength: Number | AdaptiveStrengthState, theta: Tree, g: Tree) -> tuple[Array, Tree]:
    """λ, and the scores θ − λg, of which infinite ones stay."""
    g = jax.tree.map(lambda x, g: jnp.where(jnp.isinf(x), 0, g.astype(x.dtype)), theta, g)
    if isinstance(strength, AdaptiveStrengthState):
        length, reach = _norm(g), _norm(jax.tree.map(lambda x: jnp.where(jnp.isinf(x), 0, x), theta))
        ratio = strength.strength.astype(reach.dtype) * reach / jnp.where(length == 0, 1, length)
        size = jnp.where(length == 0, 0, jnp.minimum(ratio, jnp.finfo(ratio.dtype).max))
    else:
        size = jnp.asarray(strength)
    size = jnp.where(size < 0, jnp.nan, size)
    return size, lax.stop_gradient(jax.tree.map(lambda x, g: x - size.astype(x.dtype) * g, theta, g))


def slope(size: Array, theta: Tree, answer: Tree, moved: Tree) -> Tree:
    """(y − y')/λ in the dtypes of θ, 0 for λ = 0."""

    def quotient(x, y, other):
        over = jnp.where(size == 0, 1, size).astype(x.dtype)
        return jnp.where(size == 0, 0, (y.astype(x.dtype) - other.astype(x.dtype)) / over)

    return jax.tree.map(quotient, theta, answer, moved)


def _norm(tree: Tree) -> Array:
    leaves = jax.tree.leaves(tree)
    leaves = [x.astype(_threshold.widest([x.dtype for x in leaves])) for x in leaves]
    largest = _largest([abs(x) for x in leaves])
    unit = jnp.where(largest == 0, 1, largest)  # squares of 1e30 overflow
    return unit * jnp.sqrt(_total([(x / unit) ** 2 for x in leaves]))


def _largest(leaves: list[Array]) -> Array:
    return jnp.stack([x.max(initial=-jnp.inf) for x in leaves]).max()


def _total(leaves: list[Array]) -> Array:
    return jnp.stack([x.sum() for x in leaves]).sum()
