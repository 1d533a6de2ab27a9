"""The best path through a chain of states, the algorithm of Viterbi, and its recursion."""

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike
from softmaxx._src.oracles import dynamic_oracle
from softmaxx._src.oracles.dynamic_oracle import Maximum

Chain = tuple[ArrayLike, ArrayLike]  # (unary [t, k], transitions [k, k] or [t − 1, k, k])


def best_chain(scores: Chain, *, where: ArrayLike | None = None) -> tuple[Array, Array]:
    r"""Maximises Σ_i unary[i, s_i] + Σ_i transitions[s_i, s_{i+1}] over state sequences s: Viterbi.

    Args:
      scores: a pair. `unary` `[t, k]` are the scores of k states at t places. `transitions` are
        those of a state (row) and the next (column), `[k, k]` for all places or `[t − 1, k, k]`.
        −inf is a forbidden state or transition.
      where: booleans `[t]`. A place with False is left out, whatever it holds: the chain goes from
        the place before to the one behind. So sequences are padded to one length. Between a place
        and the next one that counts it takes the transition into the latter.

    Returns:
      A pair of the scores' shapes and dtypes. The first has a one-hot row for each place, and 0 for
      one that is left out. The second counts how often each transition is taken. For a batch use
      `jax.vmap`.

    Limits:
      At ties it takes the first state, at the end first and then before. Without a sequence that is
      allowed it is 0. A nan that counts makes all nan. Scores are below +inf. The derivative is 0
      everywhere. To train through it, use `dynamic(chain)` or `perturbed(best_chain)`. A smoothing
      of an oracle takes the mask as an argument:
      `sparsemap(lambda scores, there: best_chain(scores, where=there))`.

    Raises:
      TypeError: scores are not real numbers, `where` is not boolean.
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> unary = jnp.array([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
      >>> stay = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> states, moves = sx.best_chain((unary, stay))
      >>> print(states.argmax(-1), moves[0, 0])
      [0 0 0] 2.0

    Reference:
      Viterbi, Error bounds for convolutional codes and an asymptotically optimum decoding
      algorithm, 1967; Rabiner, A Tutorial on Hidden Markov Models, 1989.
    """
    scores = checks.oracles.scores("best_chain", scores)
    where = checks.recursions.chain("best_chain", scores, where)
    kwargs = {} if where is None else {"where": where}
    return dynamic_oracle.best(chain, scores, (), kwargs)


def chain(scores: Chain, maximum: Maximum, *, where: ArrayLike | None = None) -> Array:
    r"""Computes the best sum of a chain of states by `maximum`: the recursion of `best_chain`.

    best_{i+1}[s] = unary[i+1, s] + maximum_r(best_i[r] + transitions[r, s]). Pass it to `dynamic`
    for the smoothed max of a chain, whose `argmax` are marginals. With `entropic()` it is the log
    partition function of a conditional random field, and `fenchel_young_loss` its loss.

    Args:
      scores: (unary `[t, k]`, transitions `[k, k]` or `[t − 1, k, k]`), as for `best_chain`.
      maximum: `(x, axis)` → x without the axis, a max or a smoothed one.
      where: booleans `[t]`, the places that count, as for `best_chain`.

    Returns:
      The best sum, a number. If no place counts it is 0.

    Limits:
      The target of a `fenchel_young_loss` is a pair too: for states as a one-hot y `[t, k]` it is
      (y, y[:-1]ᵀ y[1:]). Where `where` leaves places out behind the last, set y to 0 there first,
      or the loss is not that of the chain. The backward pass keeps what `maximum` keeps of
      `[t, k, k]` numbers. For long chains pass `jax.checkpoint(sx.chain, static_argnums=1)`.

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> marginals = sx.dynamic(sx.chain).argmax((jnp.zeros((3, 2)), jnp.zeros((2, 2))))[0]
      >>> print(marginals[0])
      [0.5 0.5]

    Reference:
      Lafferty, McCallum and Pereira, Conditional Random Fields, ICML 2001; Mensch and Blondel,
      Differentiable Dynamic Programming, ICML 2018, section 4.1.
    """
    where = checks.recursions.chain("chain", scores, where)
    unary, transitions = (jnp.asarray(one) for one in scores)
    t, k = unary.shape
    steps = jnp.broadcast_to(transitions, (t - 1, k, k)) if transitions.ndim == 3 else None

    def step(carry, given):
        best, is_begun = carry
        own, there, moves = given
        through = best[:, None] + (transitions if moves is None else moves)
        longer = jnp.where(is_begun, maximum(through, 0), 0) + own
        return (jnp.where(there, longer, best), is_begun | there), None

    there = jnp.ones(t, bool) if where is None else jnp.asarray(where)
    start = jnp.where(there[0], unary[0], 0), there[0]
    (best, is_begun), _ = lax.scan(step, start, (unary[1:], there[1:], steps))
    return jnp.where(is_begun, maximum(best, 0), 0)
