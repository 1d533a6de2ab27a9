"""A rule that adapts the strength λ of `interpolated` and `implicit_mle` from step to step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, Tree


class AdaptiveStrengthState(NamedTuple):
    """What `adaptive_strength` keeps: s = λ‖g‖/‖θ‖, and the running mean of nonzero gradients."""

    strength: Array
    nonzero: Array


class AdaptiveStrength(NamedTuple):
    """The pair of functions that `adaptive_strength` makes."""

    init: Callable[[], AdaptiveStrengthState]
    update: Callable[[Tree, AdaptiveStrengthState], AdaptiveStrengthState]


def adaptive_strength(
    *, target: float = 1.0, step: float = 1e-3, decay: float = 0.9
) -> AdaptiveStrength:
    r"""Makes the strength rule s ← max(s ± step, 0): up while too few gradients are nonzero.

    With λ = s·‖θ‖/‖g‖ the strength s has no unit. It starts at 0, where the gradient is 0. It grows
    until the running mean n ← decay·n + (1 − decay)·(nonzero gradients for each instance) reaches
    the target. So the step becomes as small as it can be and still tell something.

    Args:
      target: how many scores of an instance should have a nonzero gradient, on average.
      step: by how much the strength moves at each update.
      decay: of the running mean, from 0 to below 1.

    Returns:
      `AdaptiveStrength(init, update)`, two pure functions: `init()` → state, and
      `update(gradient, state)` → state. The gradient is that of a batch of scores, of the shape
      `[batch, ...]`, or a tree of such. Pass the state as `strength=` to `interpolated` or
      `implicit_mle`, and make that function anew at each step with the same oracle. In a network
      add zeros to the scores and differentiate by these too, as below: this gives the gradient of
      the scores.

    Limits:
      If the answers cannot reach the target, the strength grows without end. The mean over the
      samples of `implicit_mle` has more nonzero entries than one sample.

    Raises:
      TypeError: settings that are not real numbers.
      ValueError: a negative target or step, a decay outside of [0, 1); a gradient without a batch
        axis.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> rule = sx.adaptive_strength(step=0.1)
      >>> inputs, costs = jnp.eye(4), jnp.array([3.0, 1.0, 2.0])
      >>> @jax.jit
      ... def train(weights, state):
      ...     def loss(weights, probe):
      ...         choose = sx.interpolated(sx.one_hot_argmax, strength=state)
      ...         return (jax.vmap(choose)(inputs @ weights + probe) @ costs).sum()
      ...     by_weights, by_scores = jax.grad(loss, argnums=(0, 1))(weights, jnp.zeros((4, 3)))
      ...     return weights - 0.1 * by_weights, rule.update(by_scores, state)
      >>> weights, state = jax.random.normal(jax.random.key(0), (4, 3)), rule.init()
      >>> for _ in range(100):
      ...     weights, state = train(weights, state)
      >>> print(sx.one_hot_argmax(inputs @ weights)[0])
      [0. 1. 0.]

    Reference:
      Minervini, Franceschi and Niepert, Adaptive Perturbation-Based Gradient Estimation for
      Discrete Latent Variable Models, AAAI 2023, section 3.
    """
    for name, value in (("target", target), ("step", step), ("decay", decay)):
        checks.arguments.real_numbers("adaptive_strength", name, value)
        checks.arguments.at_least("adaptive_strength", name, value, 0)
    checks.estimators.below_one("adaptive_strength", "decay", decay)

    def init() -> AdaptiveStrengthState:
        return AdaptiveStrengthState(jnp.zeros(()), jnp.zeros(()))

    def update(gradient: Tree, state: AdaptiveStrengthState) -> AdaptiveStrengthState:
        instances = checks.estimators.batch_of_gradients("adaptive_strength", gradient)
        if instances == 0:  # an empty batch says nothing
            return state
        counts = jnp.stack([jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(gradient)])
        nonzero = counts.sum().astype(state.nonzero.dtype)
        nonzero = decay * state.nonzero + (1 - decay) * nonzero / instances
        strength = jnp.maximum(state.strength + jnp.where(nonzero < target, step, -step), 0)
        return AdaptiveStrengthState(
            strength.astype(state.strength.dtype), nonzero.astype(state.nonzero.dtype)
        )

    return AdaptiveStrength(init, update)
