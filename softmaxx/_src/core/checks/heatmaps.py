"""What can be wrong with the arguments of heatmaps: positions, windows, points, deviations."""

from typing import Any

import jax
import numpy as np

from softmaxx._src.core.checks import arguments, counts
from softmaxx._src.core.types import Axis


def positions(
    function: str, positions: Any, axis: Axis, axes: tuple[int, ...], shape: tuple[int, ...]
) -> tuple | None:
    """One array of positions for each listed axis. None stands for the positions 0, 1, 2, …"""
    if positions is None:
        return None
    listed = _for_each_axis(function, positions, axis, axes)
    arrays = tuple(arguments.real_array(function, "positions", one) for one in listed)
    for one, array in zip(axes, arrays, strict=True):
        along = tuple(n if i == one or i not in axes else 1 for i, n in enumerate(shape))
        fits = array.shape == (shape[one],) or (
            array.ndim == len(shape)
            and array.shape[one] == shape[one]
            and all(got in (1, n) for got, n in zip(array.shape, along, strict=True))
        )
        if not fits:
            raise ValueError(
                f"{function}: positions of axis {one} have shape {array.shape}; pass "
                f"({shape[one]},), or, to differ between choices, {along} with 1 allowed for the "
                "other axes."
            )
    return arrays


def _for_each_axis(function: str, positions: Any, axis: Axis, axes: tuple[int, ...]) -> tuple:
    """The positions as a tuple with one entry for each listed axis."""
    if isinstance(positions, tuple) and not isinstance(axis, tuple):
        raise ValueError(
            f"{function}: positions is a tuple, axis={axis!r}; for a single axis pass its array "
            "itself."
        )
    listed = (positions,) if not isinstance(axis, tuple) else positions
    if not isinstance(listed, tuple) or len(listed) != len(axes):
        kind = (
            "single array"
            if isinstance(positions, jax.Array | np.ndarray)
            else type(positions).__name__
        )
        got = f"a tuple of {len(positions)}" if isinstance(positions, tuple) else f"a {kind}"
        raise ValueError(
            f"{function}: positions is {got}, axis={axis!r}; pass a tuple of {len(axes)} arrays, "
            "one for each axis."
        )
    return listed


def radii(function: str, argument: str, value: Any, count: int) -> tuple[int, ...]:
    """One radius of at least 0 for each axis, from an int or a tuple of them."""
    listed = value if isinstance(value, tuple) else (value,) * count
    if not all(hasattr(one, "__index__") for one in listed):
        raise TypeError(
            f"{function}: {argument}={value!r} is not an int; pass an int, or a tuple of one int "
            "for each axis."
        )
    if len(listed) != count:
        raise ValueError(
            f"{function}: {argument}={value} has {len(listed)} radii for {count} axes; pass an "
            "int, or one for each."
        )
    return tuple(counts.static_count(function, argument, one, least=0) for one in listed)


def any_distance(function: str, distances: tuple[int, ...]) -> None:
    if not any(distances):
        raise ValueError(
            f"{function}: min_distance={distances[0]} leaves no entry to exceed; pass min_distance "
            ">= 1."
        )


def same_points(function: str, coordinates: tuple[int, ...], targets: tuple[int, ...]) -> None:
    if not coordinates or coordinates != targets:
        raise ValueError(
            f"{function}: coordinates have shape {coordinates}, targets {targets}; pass both as "
            "[..., d], for a single axis "
            "coordinates[..., None]."
        )


def target_points(function: str, targets: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if targets != expected:
        raise ValueError(
            f"{function}: targets have shape {targets}; pass one position for each axis of each "
            f"choice, {expected}."
        )


def ends(function: str, interval: Any) -> tuple[float, float]:
    """The interval is a tuple of two finite numbers that differ."""
    numbers = isinstance(interval, tuple) and all(
        isinstance(end, int | float | np.generic) for end in interval
    )
    if (
        not numbers
        or len(interval) != 2
        or not np.isfinite(interval).all()
        or interval[0] == interval[1]
    ):
        raise ValueError(
            f"{function}: interval={interval!r}; pass its two ends, finite and different, such as "
            "(-1.0, 1.0)."
        )
    return interval


def map_shape(function: str, shape: Any, centres: tuple[int, ...]) -> tuple[int, ...]:
    """The shape is a tuple of as many lengths as the centres have coordinates."""
    if not isinstance(shape, tuple):
        raise TypeError(
            f"{function}: shape={shape!r} is not a tuple; pass the lengths of the axes, such as "
            "(48, 64)."
        )
    if not centres or centres[-1] != len(shape):
        raise ValueError(
            f"{function}: centres have shape {centres}, shape={shape}; pass [..., {len(shape)}], "
            "one for each axis."
        )
    return tuple(counts.static_count(function, "shape", n) for n in shape)


def deviations(
    function: str, sigma: Any, shape: tuple[int, ...], axes: tuple[int, ...], *, zero: bool
) -> tuple:
    """One standard deviation for each axis, above 0; with `zero` it may be 0.

    Each is a number, or an array with one for each choice.
    """
    if isinstance(sigma, list):
        raise TypeError(
            f"{function}: sigma is a list; pass a number, one for each choice, or a tuple of one "
            "for each axis."
        )
    listed = sigma if isinstance(sigma, tuple) else (sigma,) * len(axes)
    if len(listed) != len(axes):
        raise ValueError(
            f"{function}: sigma has {len(listed)} deviations for {len(axes)} axes; pass a number, "
            "or one for each."
        )
    for one in listed:
        arguments.one_for_each_choice(function, "sigma", one, shape, axes)
        if zero:
            arguments.at_least(function, "sigma", one, 0)
        else:
            arguments.positive(function, "sigma", one)
    return listed
