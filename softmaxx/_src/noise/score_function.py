"""Expectations over noise, as means over samples with unbiased derivatives of every order."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, rules, sharding, trees
from softmaxx._src.core.types import Array, Key
from softmaxx._src.noise.noises import Noise
from softmaxx._src.noise.samplers import Sampler, groups_of_points

Leaf = tuple[Array, Array, Array]  # θ, σ and z of one array of the scores


class Plan(NamedTuple):
    """How an expectation is taken; all of it is static. `axes` are those that one instance spans, None is all of them."""

    noise: Noise
    sampler: Sampler
    num_samples: int
    batch_size: int | None = None
    baseline: bool = True
    axes: tuple[int, ...] | None = None

    @property
    def group_size(self) -> int:
        return self.sampler.group_size(self.num_samples)


class _Sums(NamedTuple):
    """Sums over samples of f − c for a fixed c, and of the density ratios less 1, that are 0 with derivatives."""

    f: Any
    ratio: Array
    f_ratio: Any
    groups: Any  # over groups: (Σ f)(Σ ratio)
    squares: Any  # over groups: (Σ f)²


class Expectation(NamedTuple):
    held: Any  # the mean with no derivative in the scores and sigma
    mean: Any  # the same mean with its derivatives
    error: Any  # its standard error


def expectation(
    plan: Plan, f: Callable[[list[Leaf]], Any], theta: list[Array], sigma: list[Array], key: Key
) -> Expectation:
    """The mean over samples of f, from leaves to a tree of `[B, ...]`; in memory, and seen by f, is one batch at a time."""
    size, batch = plan.group_size, plan.batch_size or plan.num_samples
    groups, at_once = plan.num_samples // size, max(1, batch // size)

    def answers(theta, sigma, numbers):
        leaves = [
            _alike(*leaf)
            for leaf in zip(theta, sigma, _noise_of(plan, key, numbers, theta), strict=True)
        ]
        logs = [_log_ratio(plan.noise, plan.axes, *leaf) for leaf in leaves]
        return f(leaves), jnp.expm1(
            sum(log.astype(dtypes.widest_dtype([log.dtype for log in logs])) for log in logs)
        )

    def first(theta, sigma):
        values, ratio = answers(theta, sigma, jnp.arange(min(at_once, groups)))
        centre = jax.tree.map(
            lambda v: v.mean(0), values
        )  # any c does, this one keeps the sums small
        sums = _sums(values, ratio, centre, size)
        return sums._replace(
            f=jax.tree.map(partial(sharding.full_keeping_sharding, 0), centre)
        ), centre

    def more(theta, sigma, centre, start, count):
        values, ratio = answers(theta, sigma, start + jnp.arange(count))
        return _sums(values, ratio, centre, size)

    if at_once >= groups:
        sums, centre = first(theta, sigma)
    else:
        # The backward pass draws and solves each batch again: what a batch leaves behind is its sums alone.
        sums, centre = jax.checkpoint(first)(theta, sigma)
        batches, rest = divmod(groups, at_once)
        again = jax.checkpoint(more, static_argnums=4)
        add = partial(jax.tree.map, jnp.add)
        starts = at_once * jnp.arange(1, batches)
        sums, _ = lax.scan(
            lambda sums, start: (add(sums, again(theta, sigma, centre, start, at_once)), None),
            sums,
            starts,
        )
        if rest:
            sums = add(sums, again(theta, sigma, centre, at_once * batches, rest))
    return _means(plan, sums, centre)


def _alike(theta: Array, sigma: Array, z: Array) -> Leaf:
    """The same with zeros added, so that inside of shard_map all of them differ between devices or none: rules need that."""
    zero = (
        sharding.zeros_keeping_sharding(theta)
        + sharding.zeros_keeping_sharding(sigma)
        + sharding.zeros_keeping_sharding(z[0])
    )
    return theta + zero, sigma + zero, z + zero[None]


def _noise_of(plan: Plan, key: Key, groups: Array, theta: list[Array]) -> list[Array]:
    """The noise of these groups for each leaf, drawn together as a matrix: samplers spread over all scores of an instance."""
    dtype = dtypes.widest_dtype([leaf.dtype for leaf in theta])
    u = groups_of_points(
        plan.sampler, key, groups, plan.group_size, sum(leaf.size for leaf in theta), dtype
    )
    checks.noises.closes_over_nothing("noise.quantile", plan.noise.quantile, u)
    z = plan.noise.quantile(u)
    checks.noises.closes_over_nothing("noise.score", plan.noise.score, z)
    checks.noises.closes_over_nothing("noise.perturb", plan.noise.perturb, z, z, z)
    checks.noises.drawn_shape("noise.quantile", z, u.shape)
    z = sharding.computed_once(z)  # else its last steps run again for each use of it
    return trees.by_leaf(z, theta)


def _sums(values: Any, ratio: Array, centre: Any, size: int) -> _Sums:
    def over_groups(x):
        return x.reshape(-1, size, *x.shape[1:]).sum(1)

    def weighted(v, weights):
        return (v * lax.expand_dims(weights, range(weights.ndim, v.ndim)).astype(v.dtype)).sum(0)

    values = jax.tree.map(lambda v, c: v - c[None], values, centre)
    by_group = values if size == 1 else jax.tree.map(over_groups, values)
    f_ratio = jax.tree.map(lambda v: weighted(v, ratio), values)
    return _Sums(
        f=jax.tree.map(lambda v: v.sum(0), values),
        ratio=ratio.sum(0),
        f_ratio=f_ratio,
        groups=f_ratio
        if size == 1
        else jax.tree.map(lambda v: weighted(v, over_groups(ratio)), by_group),
        squares=jax.tree.map(lambda v: (v * v).sum(0), by_group),
    )


def _means(plan: Plan, sums: _Sums, centre: Any) -> Expectation:
    count, size = plan.num_samples, plan.group_size
    groups, others = count // size, count - size

    def ratio_times(v):
        return v * lax.expand_dims(sums.ratio, range(sums.ratio.ndim, v.ndim)).astype(v.dtype)

    def held(f, c):
        return c + f / count

    def corrected(held, f, f_ratio, by_group, c):
        if plan.baseline and others:  # Σ ratio·(f − b), b = c + (Σ f − Σ f of the group)/others
            change = (f_ratio - (ratio_times(f) - by_group) / others) / count
        else:
            change = (f_ratio + ratio_times(c)) / count
        return rules.with_change(held + sharding.zeros_keeping_sharding(change), change)

    def error(f, squares):
        spread = jnp.maximum(squares - f * f / groups, 0) * (groups / max(groups - 1, 1))
        return lax.stop_gradient(jnp.sqrt(spread)) / count

    held_mean = jax.tree.map(held, sums.f, centre)
    mean = jax.tree.map(corrected, held_mean, sums.f, sums.f_ratio, sums.groups, centre)
    return Expectation(held_mean, mean, jax.tree.map(error, sums.f, sums.squares))


def perturbed_scores(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    """Where the oracle is asked, `[N, ...]`; no derivative passes, how the samples move with the scores is in the ratio."""
    sigma = jnp.where(sigma >= 0, sigma, jnp.nan)
    return sharding.computed_once(lax.stop_gradient(noise.perturb(theta[None], sigma[None], z)))


def slopes(noise: Noise, theta: Array, sigma: Array, z: Array) -> tuple[Array, Array]:
    """∂u/∂θ and ∂u/∂σ of the perturbed scores u, as functions of held samples u."""
    z = _held(noise, theta, sigma, z)
    at = tuple(
        jnp.broadcast_to(x[None], z.shape)
        for x in (jnp.where(jnp.isfinite(theta), theta, 0), sigma)
    )
    ones = tuple(jnp.ones_like(x) for x in at)
    by_theta = jax.jvp(lambda theta: noise.perturb(theta, at[1], z), at[:1], ones[:1])[1]
    by_sigma = jax.jvp(lambda sigma: noise.perturb(at[0], sigma, z), at[1:], ones[1:])[1]
    return by_theta, by_sigma


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _log_ratio(
    noise: Noise, axes: tuple[int, ...] | None, theta: Array, sigma: Array, z: Array
) -> Array:
    """log q(u; θ, σ) − log q(u; θ₀, σ₀) of each sample u, held while θ and σ move: 0 here, and its derivatives.

    Summed over an instance: `[N]`, or if there are axes `[N, ..., 1]` with these kept.
    """
    return _over_instance(axes, sharding.zeros_keeping_sharding(z))


@_log_ratio.defjvp
def _log_ratio_jvp(noise, axes, primals, tangents):
    # q(u; θ, σ) = q(z)/|∂u/∂z|, so d log q = −ν'(z)·dz − d log |∂u/∂z| with the dz that holds u; without noise there is none.
    theta, sigma, z = primals
    held = _held(noise, theta, sigma, z)
    point, motion = _motion(noise, theta, sigma, held, tangents[0], tangents[1])
    slope, along = jax.jvp(partial(_by_z, noise), point, motion)
    return _log_ratio(noise, axes, *primals), _over_instance(
        axes, -noise.score(held) * motion[2] - along * _inverse(slope)
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _held(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    """The noise of held samples u: z itself, without the rounding of u − θ, but it moves with θ and σ."""
    return z


@_held.defjvp
def _held_jvp(noise, primals, tangents):
    theta, sigma, z = primals
    held = _held(noise, theta, sigma, z)
    return held, _motion(noise, theta, sigma, held, tangents[0], tangents[1])[1][2]


def _motion(
    noise: Noise, theta: Array, sigma: Array, z: Array, dtheta: Array, dsigma: Array
) -> tuple[tuple, tuple]:
    """The points (θ, σ, z) and how they move while u is held: 0 = ∂u/∂θ·dθ + ∂u/∂σ·dσ + ∂u/∂z·dz. Infinite scores rest."""
    finite = jnp.isfinite(theta)
    theta, dtheta = jnp.where(finite, theta, 0), jnp.where(finite, dtheta, 0)
    dsigma = jnp.where(finite, jnp.broadcast_to(dsigma, theta.shape), 0)
    point = tuple(jnp.broadcast_to(x, z.shape) for x in (theta[None], sigma[None], z))
    dtheta, dsigma = (jnp.broadcast_to(d[None], z.shape) for d in (dtheta, dsigma))
    moved = jax.jvp(
        lambda theta, sigma: noise.perturb(theta, sigma, z), point[:2], (dtheta, dsigma)
    )[1]
    return point, (dtheta, dsigma, -moved * _inverse(_by_z(noise, *point)))


def _by_z(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    return jax.jvp(lambda z: noise.perturb(theta, sigma, z), (z,), (jnp.ones_like(z),))[1]


def _inverse(slope: Array) -> Array:
    return jnp.where(slope == 0, 0, 1 / jnp.where(slope == 0, 1, slope))


def _over_instance(axes: tuple[int, ...] | None, x: Array) -> Array:
    if axes is None:
        return x.sum(tuple(range(1, x.ndim)))
    return x.sum(tuple(axis + 1 for axis in axes), keepdims=True)
