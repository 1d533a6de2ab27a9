"""Expectations over noise: means over samples, with unbiased derivatives of every order.

Each sample is multiplied by q/q₀, the ratio of its density to its density when it was drawn. The
ratio is 1, so that the mean does not change. But its derivative is that of log q, and gives the
mean the right derivative, of every order (DiCE: Foerster et al., ICML 2018).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import attached, checks, dtypes, sharding, trees
from softmaxx._src.core.types import Array, Key
from softmaxx._src.noise import score_function
from softmaxx._src.noise.noises import Noise
from softmaxx._src.noise.samplers import Sampler, groups_of_points
from softmaxx._src.noise.score_function import Leaf


class Plan(NamedTuple):
    """How an expectation is taken. All of it is static."""

    noise: Noise
    sampler: Sampler
    num_samples: int
    batch_size: int | None = None
    baseline: bool = True
    axes: tuple[int, ...] | None = None  # those that one instance spans; None: all

    @property
    def group_size(self) -> int:
        return self.sampler.group_size(self.num_samples)

    @property
    def groups(self) -> int:
        return self.num_samples // self.group_size

    @property
    def groups_at_once(self) -> int:
        return max(1, (self.batch_size or self.num_samples) // self.group_size)


class Expectation(NamedTuple):
    """The mean of f over the samples."""

    constant: Any  # without its derivatives in θ and σ
    mean: Any  # the same number with them
    error: Any  # its standard error


class _Sums(NamedTuple):
    """Sums over samples of f − c, for a fixed c, and of the density ratios less 1, which are 0."""

    f: Any
    ratio: Array
    f_ratio: Any
    by_group: Any  # over groups: (Σ f)(Σ ratio)
    squares: Any  # over groups: (Σ f)²


def expectation(
    plan: Plan, f: Callable[[list[Leaf]], Any], theta: list[Array], sigma: list[Array], key: Key
) -> Expectation:
    """The mean of f over the samples.

    f maps leaves with B samples to a tree of `[B, ...]`. It sees one batch of samples at a time,
    and no other batch is in memory.
    """

    def sums_of(theta, sigma, groups, centre=None):
        z = _draw(plan, key, groups, theta)
        return _sums(plan, *_answers(plan, f, theta, sigma, z), centre)

    if plan.groups_at_once >= plan.groups:
        return _means(plan, *sums_of(theta, sigma, jnp.arange(plan.groups)))
    return _means(plan, *_batch_by_batch(plan, sums_of, theta, sigma))


def _batch_by_batch(
    plan: Plan, sums_of: Callable, theta: list[Array], sigma: list[Array]
) -> tuple[_Sums, Any]:
    """The same sums in the memory of one batch. The backward pass draws and solves each again."""
    sums_of = jax.checkpoint(sums_of)
    batches, rest = divmod(plan.groups, plan.groups_at_once)
    sums, centre = sums_of(theta, sigma, jnp.arange(plan.groups_at_once))

    def add(sums, groups):
        return jax.tree.map(jnp.add, sums, sums_of(theta, sigma, groups, centre)[0]), None

    groups = jnp.arange(batches * plan.groups_at_once).reshape(batches, -1)
    sums, _ = lax.scan(add, sums, groups[1:])
    if rest:
        sums, _ = add(sums, jnp.arange(plan.groups - rest, plan.groups))
    return sums, centre


def _draw(plan: Plan, key: Key, groups: Array, theta: list[Array]) -> list[Array]:
    """The noise of these groups for each leaf.

    It is drawn as one matrix, because samplers spread their points over all scores together.
    """
    dtype = dtypes.widest_dtype([leaf.dtype for leaf in theta])
    dimension = sum(leaf.size for leaf in theta)
    u, v = groups_of_points(plan.sampler, key, groups, plan.group_size, dimension, dtype)
    checks.noises.closes_over_nothing("noise.quantile", plan.noise.quantile, u, v)
    z = plan.noise.quantile(u, v)
    checks.noises.closes_over_nothing("noise.perturb", plan.noise.perturb, z, z, z)
    checks.noises.drawn_shape("noise.quantile", z, u.shape)
    z = sharding.computed_once(z)  # else its last steps run again for each use of it
    return trees.by_leaf(z, theta)


def _alike_on_devices(theta: Array, sigma: Array, z: Array) -> Leaf:
    """θ, σ and z, with a zero of all three added to each.

    Inside of `shard_map` all of them then differ between devices, or none does. The derivative
    rules of `score_function` need that.
    """
    zero = (
        sharding.zeros_keeping_sharding(theta)
        + sharding.zeros_keeping_sharding(sigma)
        + sharding.zeros_keeping_sharding(z[0])
    )
    return theta + zero, sigma + zero, z + zero[None]


def _answers(
    plan: Plan,
    f: Callable[[list[Leaf]], Any],
    theta: list[Array],
    sigma: list[Array],
    z: list[Array],
) -> tuple[Any, Array]:
    """f of the samples, and their density ratios less 1."""
    leaves = [_alike_on_devices(*leaf) for leaf in zip(theta, sigma, z, strict=True)]
    logs = [score_function.log_ratio(plan.noise, plan.axes, *leaf) for leaf in leaves]
    widest = dtypes.widest_dtype([log.dtype for log in logs])
    return f(leaves), jnp.expm1(sum(log.astype(widest) for log in logs))


def _sums(plan: Plan, values: Any, ratio: Array, centre: Any = None) -> tuple[_Sums, Any]:
    """The sums over samples, and the centre c that is subtracted from f.

    Any centre gives the same means. The default is the mean of these values: it keeps the sums
    small.
    """
    if centre is not None:
        return _sums_around(values, ratio, centre, plan.group_size), centre
    centre = jax.tree.map(lambda v: v.mean(0), values)
    sums = _sums_around(values, ratio, centre, plan.group_size)
    # Here the sum of f − c is 0, up to rounding.
    return sums._replace(f=jax.tree.map(partial(sharding.full_keeping_sharding, 0), centre)), centre


def _sums_around(values: Any, ratio: Array, centre: Any, group_size: int) -> _Sums:
    def over_groups(x):
        return x.reshape(len(x) // group_size, group_size, *x.shape[1:]).sum(1)

    def weighted(v, weights):
        return (v * _aligned(weights, v)).sum(0)

    values = jax.tree.map(lambda v, c: v - c[None], values, centre)
    f_ratio = jax.tree.map(lambda v: weighted(v, ratio), values)
    group_f, by_group = values, f_ratio
    if group_size > 1:
        group_f = jax.tree.map(over_groups, values)
        by_group = jax.tree.map(lambda v: weighted(v, over_groups(ratio)), group_f)
    return _Sums(
        f=jax.tree.map(lambda v: v.sum(0), values),
        ratio=ratio.sum(0),
        f_ratio=f_ratio,
        by_group=by_group,
        squares=jax.tree.map(lambda v: (v * v).sum(0), group_f),
    )


def _means(plan: Plan, sums: _Sums, centre: Any) -> Expectation:
    count, groups = plan.num_samples, plan.groups
    others = count - plan.group_size  # samples that are independent of a given one

    def with_derivative(constant, f, f_ratio, by_group, c):
        ratio_times = partial(jnp.multiply, _aligned(sums.ratio, f))
        if plan.baseline and others:
            # Σ ratio·(f − b), b = c + (Σ f − Σ f of the group)/others
            change = (f_ratio - (ratio_times(f) - by_group) / others) / count
        else:
            change = (f_ratio + ratio_times(c)) / count
        return attached.with_change(constant + sharding.zeros_keeping_sharding(change), change)

    def error(f, squares):
        spread = jnp.maximum(squares - f * f / groups, 0) * (groups / max(groups - 1, 1))
        return lax.stop_gradient(jnp.sqrt(spread)) / count

    constant = jax.tree.map(lambda f, c: c + f / count, sums.f, centre)
    mean = jax.tree.map(with_derivative, constant, sums.f, sums.f_ratio, sums.by_group, centre)
    return Expectation(constant, mean, jax.tree.map(error, sums.f, sums.squares))


def _aligned(weights: Array, like: Array) -> Array:
    """Weights `[B]` or `[B, ..., 1]` in the rank and dtype of `[B, ...]`."""
    return lax.expand_dims(weights, range(weights.ndim, like.ndim)).astype(like.dtype)
