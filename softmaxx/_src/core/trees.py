"""Trees of arrays: inner products, norms, rows of samples cut into the leaves, flat vectors."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softmaxx._src.core import dtypes
from softmaxx._src.core.types import Array, Tree


def sum_of_products(one: Tree, other: Tree, dtype: jnp.dtype) -> Array:
    """Σ one·other over all leaves, linear in both."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jnp.stack([(x * y).sum().astype(dtype) for x, y in pairs]).sum()


def inner(scores: Tree, targets: Tree) -> Array:
    """⟨scores, targets⟩. A score of −inf, +inf or nan with target 0 counts 0."""

    def product(x, y):
        return (jnp.where((y == 0) & ~jnp.isfinite(x), 0, x) * y.astype(x.dtype)).sum()

    products = jax.tree.leaves(jax.tree.map(product, scores, targets))
    dtype = dtypes.widest_dtype([one.dtype for one in products])
    return jnp.stack([one.astype(dtype) for one in products]).sum()


def by_leaf(z: Array, theta: list[Array]) -> list[Array]:
    """A matrix with a row for each sample, cut into one array `[rows, *shape]` for each leaf."""
    parts = jnp.split(z, np.cumsum([leaf.size for leaf in theta])[:-1], axis=1)
    return [
        part.reshape(len(z), *leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, theta, strict=True)
    ]


def norm(tree: Tree) -> Array:
    """The Euclidean norm of all leaves together."""
    leaves = jax.tree.leaves(tree)
    leaves = [x.astype(dtypes.widest_dtype([x.dtype for x in leaves])) for x in leaves]
    largest = largest_of([abs(x) for x in leaves])
    unit = jnp.where(largest == 0, 1, largest)  # squares of 1e30 overflow
    return unit * jnp.sqrt(total_of([(x / unit) ** 2 for x in leaves]))


def largest_of(leaves: list[Array]) -> Array:
    return jnp.stack([x.max(initial=-jnp.inf) for x in leaves]).max()


def total_of(leaves: list[Array]) -> Array:
    return jnp.stack([x.sum() for x in leaves]).sum()


class Layout(NamedTuple):
    """The leaves of a tree in one vector. It may be a static argument of jit."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[jnp.dtype, ...]

    @property
    def widest(self) -> jnp.dtype:
        """The dtype of a number that stands for all leaves."""
        return dtypes.widest_dtype(list(self.dtypes))

    def flat(self, tree: Tree) -> Array:
        """The leaves as a vector `[d]` in the working dtype."""
        working = dtypes.working_dtype(self.widest)
        return jnp.concatenate([leaf.astype(working).ravel() for leaf in jax.tree.leaves(tree)])

    def unflat(self, x: Array) -> Tree:
        """Vectors `[..., d]` as trees with their dtype."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = jnp.split(x, ends[:-1], axis=-1)
        leaves = [
            part.reshape(*x.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)

    def in_dtypes(self, tree: Tree) -> Tree:
        """The tree in the dtypes of the layout."""
        leaves = jax.tree.leaves(tree)
        cast = [leaf.astype(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]
        return jax.tree.unflatten(self.tree, cast)


def layout(tree: Tree) -> Layout:
    leaves, structure = jax.tree.flatten(tree)
    return Layout(structure, tuple(x.shape for x in leaves), tuple(x.dtype for x in leaves))
