"""The coordinate conventions, against numbers worked out by hand."""

import jax
import numpy as np
import pytest
from grids import gaussian

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def test_every_convention_by_hand():
    np.testing.assert_array_equal(sx.pixel_positions(3), [0, 1, 2])
    np.testing.assert_array_equal(sx.pixel_positions(3, origin=0.5), [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(sx.unit_positions(4), [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_array_equal(sx.unit_positions(5, align_corners=True), [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(
        sx.unit_positions(4, interval=(0.0, 1.0)), [0.125, 0.375, 0.625, 0.875]
    )
    np.testing.assert_array_equal(
        sx.unit_positions(3, align_corners=True, interval=(10.0, 20.0)), [10, 15, 20]
    )
    for align_corners in [False, True]:
        np.testing.assert_array_equal(sx.unit_positions(1, align_corners=align_corners), [0])


@pytest.mark.parametrize("n", [3, 7, 48, 100])
def test_positions_are_rounded_once_and_the_table_is_right_both_ways(n):
    i = np.arange(n)
    table = {  # positions: from the index, and back
        (False, (-1.0, 1.0)): (lambda i: (2 * i + 1) / n - 1, lambda x: (n * (x + 1) - 1) / 2),
        (True, (-1.0, 1.0)): (lambda i: 2 * i / (n - 1) - 1, lambda x: (n - 1) * (x + 1) / 2),
        (False, (0.0, 1.0)): (lambda i: (i + 0.5) / n, lambda x: n * x - 0.5),
    }
    for (align_corners, interval), (to, back) in table.items():
        x = np.asarray(sx.unit_positions(n, align_corners=align_corners, interval=interval))
        np.testing.assert_allclose(x, to(i), atol=1e-15)
        np.testing.assert_allclose(back(x), i, atol=1e-13)
    x = np.asarray(sx.unit_positions(n))
    np.testing.assert_array_equal(x, -x[::-1])
    np.testing.assert_array_equal(x, (2 * i + 1 - n) / n)
    np.testing.assert_array_equal(
        sx.unit_positions(n, align_corners=True), (2 * i + 1 - n) / (n - 1)
    )


def test_a_peak_is_read_in_every_convention():
    conventions = [
        (sx.pixel_positions, lambda i, n: i),
        (lambda n: sx.pixel_positions(n, origin=0.5), lambda i, n: i + 0.5),
        (sx.unit_positions, lambda i, n: (2 * i + 1) / n - 1),
        (lambda n: sx.unit_positions(n, align_corners=True), lambda i, n: 2 * i / (n - 1) - 1),
        (lambda n: sx.unit_positions(n, interval=(0.0, 1.0)), lambda i, n: (i + 0.5) / n),
    ]
    maps = []
    for shape in [(9,), (6, 9), (4, 6, 9)]:
        centre = np.array([n / 3 + 0.2 for n in shape])
        choice = gaussian(tuple(map(np.arange, shape)), centre, 0.6)
        maps.append(choice / choice.sum())

    @jax.jit
    def read(maps):
        return [
            [
                sx.expected_index(
                    choice,
                    axis=tuple(range(choice.ndim)),
                    positions=positions and tuple(map(positions, choice.shape)),
                )
                for positions in [None, *(positions for positions, _ in conventions)]
            ]
            for choice in maps
        ]

    for choice, (index, *others) in zip(maps, read(maps), strict=True):
        for (_, convert), got in zip(conventions, others, strict=True):
            expected = [convert(i, n) for i, n in zip(index, choice.shape, strict=True)]
            np.testing.assert_allclose(got, np.array(expected), atol=1e-12)


def test_wrong_lengths():
    with pytest.raises(ValueError, match="pixel_positions: n=0; pass n >= 1"):
        sx.pixel_positions(0)
    with pytest.raises(TypeError, match=r"unit_positions: n=2\.5 is not an int"):
        sx.unit_positions(2.5)  # pyright: ignore[reportArgumentType]
    for interval in [1.0, (0.0, 1.0, 2.0), (1.0, 1.0), (0.0, np.inf), ("0", "1")]:
        with pytest.raises(
            ValueError,
            match=r"unit_positions: interval=.*; pass its two ends, finite and different",
        ):
            sx.unit_positions(3, interval=interval)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="pixel_positions: origin is a str"):
        sx.pixel_positions(3, origin="corner")  # pyright: ignore[reportArgumentType]
