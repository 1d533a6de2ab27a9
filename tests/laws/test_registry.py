"""The registry and the public names: each name is registered, or listed as what it is."""

from registry import OTHERS, SMOOTH, VARIANTS

import softmaxx as sx

KINDS = {"choice", "oracle", "readout", "moment", "loss", "estimator", "smoothing"}
# What is no function of scores; the tests of its room cover it.
ELSEWHERE = {
    "type": {"LinearTargets", "Noise", "Peaks", "Sampler", "SmoothMax"},
    "noise": {
        "exponential",
        "gumbel",
        "laplace",
        "log_normal",
        "logistic",
        "normal",
        "sum_of_gamma",
    },
    "sampler": {"antithetic", "independent", "latin_hypercube", "sobol"},
    "positions": {"pixel_positions", "unit_positions"},
    "strength of a step": {"adaptive_strength"},
    "recursion": {"alignment", "chain", "grid_path"},
}


def public(name: str) -> str:
    return name.split("-")[0]


def test_every_public_name_is_registered_or_listed_as_what_it_is():
    registered = {public(one.name) for one in [*SMOOTH, *VARIANTS, *OTHERS]}
    listed = set().union(*ELSEWHERE.values())
    assert registered | listed == set(sx.__all__)
    assert not registered & listed


def test_names_differ_and_kinds_are_known():
    for entries in ([*SMOOTH, *VARIANTS], OTHERS):
        assert len({one.name for one in entries}) == len(entries)
        assert {one.kind for one in entries} <= KINDS
    assert {one.modes for one in OTHERS} == {"both", "reverse", "zero"}
    assert {one.axis for one in OTHERS} == {"", "int", "joint"}
