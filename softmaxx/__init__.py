"""Differentiable argmax for JAX: choices, oracles, readouts and perturbed optimisers."""

from softmaxx._capped import soft_top_k
from softmaxx._expect import expected_index, expected_spread, soft_argmax, sparse_argmax
from softmaxx._maps import threshold_map
from softmaxx._oracles import one_hot_argmax, top_k_mask
from softmaxx._perturb import Noise, gumbel, normal, perturbed, perturbed_argmax
from softmaxx._simplex import entmax, softmax, sparsemax
from softmaxx._types import SmoothMax

__version__ = "0.1.0"

__all__ = [
    "Noise",
    "SmoothMax",
    "entmax",
    "expected_index",
    "expected_spread",
    "gumbel",
    "normal",
    "one_hot_argmax",
    "perturbed",
    "perturbed_argmax",
    "soft_argmax",
    "soft_top_k",
    "softmax",
    "sparse_argmax",
    "sparsemax",
    "threshold_map",
    "top_k_mask",
]
