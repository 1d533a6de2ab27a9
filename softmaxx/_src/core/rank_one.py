"""The derivative of every choice, w ⊙ (v − Σwv/Σw), as one operation that JAX can transpose.

Its matrix diag(w) − wwᵀ/Σw is symmetric. So it is its own transpose: a gradient is the same two
passes, the first of which sums w and wv together. JAX would transpose sum and product one by one,
and then XLA writes w and wv, and reads them again, on CPU.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from softmaxx._src.core import reductions, sharding
from softmaxx._src.core.types import Array

_rank_one = Primitive("rank_one")


def rank_one(w: Array, v: Array, scale: float | Array, axes: tuple[int, ...]) -> Array:
    """c·w ⊙ (v − Σwv/Σw) over the axes, 0 where w is 0, whatever v holds there.

    The scale c is one number, or one for each slice with the axes of length 1. It multiplies last:
    where a sole w is positive, v − Σwv/Σw has to be exactly 0, and c may be large.
    """
    scale = jnp.asarray(scale, v.dtype)
    scale = lax.expand_dims(scale, range(v.ndim - scale.ndim))
    if not sharding.is_local(w):
        v = v + sharding.zeros_keeping_sharding(w)
    return _rank_one.bind(w, v, scale, axes=tuple(sorted(axes)))


def _computed(w: Array, v: Array, scale: Array, *, axes: tuple[int, ...]) -> Array:
    w = jnp.broadcast_to(w, v.shape)  # one w for a batch of v
    off = w == 0
    total, moment = reductions.sums((w, w * jnp.where(off, 0, v)), axes)
    # The barrier lets XLA divide once for each slice, and not for each entry.
    mean = lax.optimization_barrier(moment / jnp.where(total == 0, 1, total))
    return jnp.where(off, 0, w * (v - mean) * scale)


def _derivative(primals, tangents, *, axes):
    (w, v, scale), (dw, dv, dscale) = primals, tangents
    parts = []
    if not isinstance(dv, ad.Zero):
        parts.append(_rank_one.bind(w, dv, scale, axes=axes))
    if not isinstance(dw, ad.Zero):
        parts.append(scale * _along_w(w, v, dw, axes))
    if not isinstance(dscale, ad.Zero):
        parts.append(_rank_one.bind(w, v, jnp.ones_like(scale), axes=axes) * dscale)
    return _rank_one.bind(w, v, scale, axes=axes), reduce(jnp.add, parts)


def _along_w(w: Array, v: Array, dw: Array, axes: tuple[int, ...]) -> Array:
    """dw ⊙ (v − m) − w·Σdw(v − m)/Σw, with m = Σwv/Σw."""
    off = w == 0
    total = w.sum(axes, keepdims=True)
    inverse = 1 / jnp.where(total == 0, 1, total)
    v, dw = jnp.where(off, 0, v), jnp.where(off, 0, dw)
    centred = jnp.where(off, 0, v - (w * v).sum(axes, keepdims=True) * inverse)
    return dw * centred - w * ((dw * centred).sum(axes, keepdims=True) * inverse)


def _transposed(cotangent, w, v, scale, *, axes):
    if isinstance(cotangent, ad.Zero):
        return None, ad.Zero(v.aval), None
    return None, _rank_one.bind(w, cotangent, scale, axes=axes), None


def _batched(arguments, dimensions, *, axes):
    w, v, scale = (
        x[None] if at is None else jnp.moveaxis(x, at, 0)
        for x, at in zip(arguments, dimensions, strict=True)
    )
    v = v + sharding.zeros_keeping_sharding(w) + sharding.zeros_keeping_sharding(scale)
    return _rank_one.bind(w, v, scale, axes=tuple(axis + 1 for axis in axes)), 0


_rank_one.def_impl(jax.jit(_computed, static_argnames="axes"))
_rank_one.def_abstract_eval(lambda w, v, scale, *, axes: v)
mlir.register_lowering(_rank_one, mlir.lower_fun(_computed, multiple_results=False))
ad.primitive_jvps[_rank_one] = _derivative
ad.primitive_transposes[_rank_one] = _transposed
batching.primitive_batchers[_rank_one] = _batched
