"""Differentiable argmax for JAX: choices, oracles, readouts and perturbed optimisers."""

from softmaxx._background import expm1_softmax
from softmaxx._capped import soft_top_k
from softmaxx._coordinate_loss import coordinate_loss
from softmaxx._entmax_loss import entmax_loss, sparsemax_loss
from softmaxx._estimators import identity_gradient, interpolated, straight_through
from softmaxx._expect import expected_covariance, expected_index, expected_spread
from softmaxx._gaussian import gaussian_heatmap
from softmaxx._gumbel import gumbel_rao, gumbel_softmax, gumbel_top_k, hard_gumbel_softmax, reinmax
from softmaxx._heatmap_losses import js_to_gaussian, kl_to_gaussian, variance_loss
from softmaxx._host import host_oracle
from softmaxx._implicit_mle import adaptive_strength, implicit_mle, sum_of_gamma
from softmaxx._linear_loss import linear_entmax_loss
from softmaxx._local import local_argmax
from softmaxx._losses import fenchel_young_loss, spo_plus_loss
from softmaxx._maps import threshold_map
from softmaxx._noise import Noise, gumbel, laplace, log_normal, logistic, normal
from softmaxx._oracles import one_hot_argmax, row_oracle, top_k_mask
from softmaxx._paths import best_grid_path
from softmaxx._peaks import Peaks, find_peaks
from softmaxx._perturb import perturbed, standard_error
from softmaxx._perturbed_argmax import perturbed_argmax
from softmaxx._positions import pixel_positions, unit_positions
from softmaxx._ranking import expected_ranking, ranking
from softmaxx._regularize import entropic, euclidean, regularized, tsallis
from softmaxx._sampling import Sampler, antithetic, independent, latin_hypercube, sobol
from softmaxx._simplex import entmax, softmax, sparsemax
from softmaxx._soft_argmax import soft_argmax, sparse_argmax
from softmaxx._types import SmoothMax

__version__ = "0.1.0"

__all__ = [
    "Noise",
    "Peaks",
    "Sampler",
    "SmoothMax",
    "adaptive_strength",
    "antithetic",
    "best_grid_path",
    "coordinate_loss",
    "entmax",
    "entmax_loss",
    "entropic",
    "euclidean",
    "expected_covariance",
    "expected_index",
    "expected_ranking",
    "expected_spread",
    "expm1_softmax",
    "fenchel_young_loss",
    "find_peaks",
    "gaussian_heatmap",
    "gumbel",
    "gumbel_rao",
    "gumbel_softmax",
    "gumbel_top_k",
    "hard_gumbel_softmax",
    "host_oracle",
    "identity_gradient",
    "implicit_mle",
    "independent",
    "interpolated",
    "js_to_gaussian",
    "kl_to_gaussian",
    "laplace",
    "latin_hypercube",
    "linear_entmax_loss",
    "local_argmax",
    "log_normal",
    "logistic",
    "normal",
    "one_hot_argmax",
    "perturbed",
    "perturbed_argmax",
    "pixel_positions",
    "ranking",
    "regularized",
    "reinmax",
    "row_oracle",
    "sobol",
    "soft_argmax",
    "soft_top_k",
    "softmax",
    "sparse_argmax",
    "sparsemax",
    "sparsemax_loss",
    "spo_plus_loss",
    "standard_error",
    "straight_through",
    "sum_of_gamma",
    "threshold_map",
    "top_k_mask",
    "tsallis",
    "unit_positions",
    "variance_loss",
]
