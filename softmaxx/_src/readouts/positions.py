"""The positions of pixels in the coordinate conventions of the field."""

import jax.numpy as jnp
import numpy as np

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array


def pixel_positions(n: int, *, origin: float = 0.0) -> Array:
    r"""Computes the centres of n pixels in units of a pixel, origin + i: pass them as `positions=`.

    Args:
      n: the number of entries along the axis, a Python int.
      origin: the centre of the first pixel. Take 0 if pixels are named by their index. In the
        half-pixel convention take 0.5: there the first pixel reaches from 0 to 1.

    Returns:
      An array of the shape `[n]`, in the default float dtype. Units: pixels.

    Limits:
      n = 1 gives the centre of the first pixel.

    Raises:
      TypeError: n is not an int, or origin is no number.
      ValueError: n < 1.

    Example:
      >>> import softmaxx as sx
      >>> print(sx.pixel_positions(4), sx.pixel_positions(4, origin=0.5))
      [0. 1. 2. 3.] [0.5 1.5 2.5 3.5]

    Reference:
      Heckbert, What Are the Coordinates of a Pixel?, Graphics Gems, 1990.
    """
    checks.arguments.real_numbers("pixel_positions", "origin", origin)
    return jnp.arange(checks.counts.static_count("pixel_positions", "n", n), dtype=float) + origin


def unit_positions(
    n: int, *, align_corners: bool = False, interval: tuple[float, float] = (-1.0, 1.0)
) -> Array:
    r"""Computes the centres of n pixels in a map from −1 to 1: pass them as `positions=`.

    `interval` sets other ends a and b. They are the outer edges of the first and the last pixel.
    Position i is then a + (b − a)·(i + ½)/n. With `align_corners` they are the centres of these
    pixels. Position i is then a + (b − a)·i/(n − 1):

    | convention | positions | index i to x | x to i |
    | --- | --- | --- | --- |
    | index: NumPy, OpenCV, kornia's pixels | `pixel_positions(n)` | i | x |
    | half-pixel: `jax.image.resize` | `pixel_positions(n, origin=0.5)` | i + ½ | x − ½ |
    | DSNT; torch, corners not aligned | `unit_positions(n)` | (2i + 1)/n − 1 | (n(x + 1) − 1)/2 |
    | torch aligned, kornia's [−1, 1] | `… align_corners=True` | 2i/(n − 1) − 1 | (n − 1)(x + 1)/2 |
    | share of the width | `… interval=(0.0, 1.0)` | (i + ½)/n | nx − ½ |

    Args:
      n: the number of entries along the axis, a Python int.
      align_corners: whether the interval ends at the centres of the corner pixels, instead of at
        their outer edges.
      interval: the ends a and b.

    Returns:
      An array of the shape `[n]` in the default float dtype. Each entry is rounded once. Units:
      those of the interval.

    Limits:
      n = 1: the middle of the interval. Maps of different sizes read alike only without
      `align_corners`. Libraries list x, the column, first. Here coordinates come in the order of
      `axis=`: `axis=(-1, -2)` gives (x, y).

    Raises:
      TypeError: n is not an int.
      ValueError: n < 1, or the interval is not two different finite numbers.

    Example:
      >>> import softmaxx as sx
      >>> print(sx.unit_positions(4), sx.unit_positions(5, align_corners=True))
      [-0.75 -0.25  0.25  0.75] [-1.  -0.5  0.   0.5  1. ]

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018 (the
      default).
    """
    n = checks.counts.static_count("unit_positions", "n", n)
    first, last = checks.heatmaps.ends("unit_positions", interval)
    # In whole numbers, by NumPy. XLA would multiply by the reciprocal of the width and round twice.
    corners = align_corners and n > 1
    after, width = (np.arange(n), n - 1) if corners else (2 * np.arange(n) + 1, 2 * n)
    return jnp.asarray((first * (width - after) + last * after) / width, float)
