"""Losses of oracles and smoothings: Fenchel–Young, and SPO+ for decisions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, trees
from softmaxx._src.core.types import Array, Oracle, SmoothMax, Tree
from softmaxx._src.oracles import row_oracle


def fenchel_young_loss(smooth: SmoothMax) -> Callable[..., Array]:
    r"""Makes the loss F(θ) + Ω(y) − ⟨θ, y⟩ of scores θ and targets y from a smoothed max F.

    Ω is the conjugate of F. The loss is convex in the scores. Its gradient in them is
    `smooth.argmax(scores) − targets`. The loss is least if the argmax is the target. So scores
    are trained by right answers alone, and an oracle needs no derivative.

    Args:
      smooth: a `SmoothMax` pair: `entropic()`, `euclidean()`, `tsallis(alpha)`, or what
        `regularized`, `sparsemap`, `dynamic` and `perturbed` make.

    Returns:
      `loss(scores, targets, *args, **kwargs)`, one number for each instance. Targets have the
      scores' shape, and are points of the choice set or of its hull. Args and keywords such as
      `key=` go to `smooth`.
      For `entropic`, `euclidean` and `tsallis` it is `entmax_loss` along their axis, one number for
      each choice of a batch. Integer labels are targets too. For the others it is of one instance:
      for a batch use `jax.vmap`.
      If `smooth.penalty` is known, the loss is at least 0, and 0 at the optimum. For
      `perturbed(one_hot_argmax, noise=gumbel)` this holds up to the Monte-Carlo error. If the
      penalty is None, as for `dynamic` and every other `perturbed`, the loss lacks the constant
      Ω(y), which is 0 at a solution for `dynamic` with `entropic()` or `tsallis`. Otherwise its
      value may be negative, and its gradient in the targets is −scores alone. The gradient in the
      scores is the same.

    Limits:
      A score of −inf with a target of 0 counts 0. As the noise goes to zero, the loss becomes the
      perceptron's: the max less the score of the target.

    Raises:
      TypeError: `smooth` is no `SmoothMax`.
      ValueError: targets do not look like the scores; what `smooth` raises.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.perturbed(sx.one_hot_argmax, noise=sx.gumbel, num_samples=10_000)
      >>> loss = sx.fenchel_young_loss(smooth)
      >>> scores, target = jnp.array([1.0, 2.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
      >>> print(loss(scores, target, key=jax.random.key(0)).round(1))  # cross-entropy is 0.41
      0.4

    Reference:
      Blondel, Martins and Niculae, Learning with Fenchel-Young Losses, JMLR 2020; Berthet et al.,
      Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 4.
    """
    if not isinstance(smooth, SmoothMax):
        kind = type(smooth).__name__
        raise TypeError(
            f"fenchel_young_loss: smooth is a {kind}; pass a SmoothMax, such as "
            "sx.perturbed(oracle)."
        )
    if smooth.loss is not None:
        return smooth.loss

    def loss(scores: Tree, targets: Tree, *args: Any, **kwargs: Any) -> Array:
        scores, targets, dtype = _working("fenchel_young_loss", scores, targets)
        loss = smooth.value(scores, *args, **kwargs) - trees.inner(scores, targets)
        if smooth.penalty is not None:
            loss = loss + smooth.penalty(targets, *args, **kwargs).astype(loss.dtype)
        return loss.astype(dtype)

    return loss


def spo_plus_loss(oracle: Oracle) -> Callable[..., Array]:
    r"""Makes the SPO+ loss max_y ⟨2θ − t, y⟩ − 2⟨θ, y(t)⟩ + ⟨t, y(t)⟩ of scores θ and true ones t.

    θ is predicted, and y(t) is the oracle's answer to t. The loss is a convex upper bound of the
    regret ⟨t, y(t)⟩ − ⟨t, y(θ)⟩ of deciding by θ. Its subgradient is 2(y(2θ − t) − y(t)).

    Args:
      oracle: `(scores, *args)` → the vertex y with the largest ⟨scores, y⟩, in the scores' shape.
        It needs no derivative.

    Returns:
      `loss(scores, targets, *args)`, a number. Targets are the true scores. For costs c and
      predicted costs ĉ pass −ĉ and −c. The oracle is asked for two rows at once. For a batch use
      `jax.vmap`.

    Limits:
      0 at scores = targets. A target of −inf forbids its choice, whatever the score. If the
      maximiser is not unique, the subgradient is that of the oracle's vertex.

    Raises:
      TypeError: the oracle is not callable or does not return real numbers.
      ValueError: targets or the oracle's output do not look like the scores.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> loss = sx.spo_plus_loss(sx.one_hot_argmax)
      >>> print(loss(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0])))  # it takes the worse by 3
      5.0

    Reference:
      Elmachtoub and Grigas, Smart "Predict, then Optimize", Management Science 2022, definition 3
      and proposition 3.
    """
    checks.oracles.oracle("spo_plus_loss", oracle)

    def loss(scores: Tree, targets: Tree, *args: Any) -> Array:
        scores, targets, dtype = _working("spo_plus_loss", scores, targets)
        # A target of −inf forbids its choice.
        shifted = jax.tree.map(lambda x, t: jnp.where(t == -jnp.inf, t, 2 * x - t), scores, targets)
        answers = _two_answers(oracle, shifted, targets, args)
        # max_y ⟨2θ − t, y⟩ − 2⟨θ, y(t)⟩ + ⟨t, y(t)⟩ = ⟨2θ − t, y(2θ − t) − y(t)⟩. No derivative of
        # the scores passes through the answers (Danskin).
        return trees.inner(shifted, jax.tree.map(lambda y: y[0] - y[1], answers)).astype(dtype)

    return loss


@partial(jax.jit, static_argnums=0)
def _two_answers(oracle: Oracle, shifted: Tree, targets: Tree, args: tuple) -> Tree:
    """The oracle's answers to both, `[2, ...]`, asked at once. The oracle is traced once."""
    function = "spo_plus_loss"
    one = checks.oracles.shapes_of_answer(function, oracle, shifted, args)
    checks.oracles.like_scores(function, one, shifted)
    rows = jax.tree.map(lambda *pair: jnp.stack(pair), *lax.stop_gradient((shifted, targets)))
    answers = row_oracle.solve_rows(oracle, rows, args)
    checks.oracles.one_answer_for_each_row(function, answers, one, 2)
    return answers


def _working(function: str, scores: Tree, targets: Tree) -> tuple[Tree, Tree, jnp.dtype]:
    """Scores and targets in the dtype to compute in, and the dtype of the loss."""
    scores, targets = checks.oracles.scores_and_targets(function, scores, targets)
    dtype = dtypes.widest_dtype([leaf.dtype for leaf in jax.tree.leaves(scores)])
    targets = jax.tree.map(lambda t, x: t.astype(dtypes.working_dtype(x.dtype)), targets, scores)
    return jax.tree.map(dtypes.working, scores), targets, dtype
