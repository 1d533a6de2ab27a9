"""Differentiable argmax for JAX: choices, oracles, readouts and perturbed optimisers."""

from softmaxx._src.choices.expm1_softmax import expm1_softmax
from softmaxx._src.choices.simplex import entmax, softmax, sparsemax
from softmaxx._src.choices.soft_top_k import soft_top_k
from softmaxx._src.choices.threshold_map import threshold_map
from softmaxx._src.core.types import SmoothMax
from softmaxx._src.estimators.adaptive_strength import adaptive_strength
from softmaxx._src.estimators.gumbel_rao import gumbel_rao
from softmaxx._src.estimators.gumbel_softmax import gumbel_softmax, hard_gumbel_softmax
from softmaxx._src.estimators.gumbel_top_k import gumbel_top_k
from softmaxx._src.estimators.identity_gradient import identity_gradient
from softmaxx._src.estimators.implicit_mle import implicit_mle
from softmaxx._src.estimators.interpolated import interpolated
from softmaxx._src.estimators.reinmax import reinmax
from softmaxx._src.estimators.straight_through import straight_through
from softmaxx._src.estimators.sum_of_gamma import sum_of_gamma
from softmaxx._src.losses.coordinate_loss import coordinate_loss
from softmaxx._src.losses.entmax_loss import entmax_loss, sparsemax_loss
from softmaxx._src.losses.gaussian_heatmap import gaussian_heatmap
from softmaxx._src.losses.heatmap_losses import js_to_gaussian, kl_to_gaussian, variance_loss
from softmaxx._src.losses.linear_entmax_loss import linear_entmax_loss
from softmaxx._src.losses.structured import fenchel_young_loss, spo_plus_loss
from softmaxx._src.noise.noises import Noise, gumbel, laplace, log_normal, logistic, normal
from softmaxx._src.noise.samplers import Sampler, antithetic, independent, latin_hypercube, sobol
from softmaxx._src.oracles.best_grid_path import best_grid_path
from softmaxx._src.oracles.host_oracle import host_oracle
from softmaxx._src.oracles.ranking import ranking
from softmaxx._src.oracles.row_oracle import row_oracle
from softmaxx._src.oracles.vertices import one_hot_argmax, top_k_mask
from softmaxx._src.order.expected_ranking import expected_ranking
from softmaxx._src.readouts.find_peaks import Peaks, find_peaks
from softmaxx._src.readouts.local_argmax import local_argmax
from softmaxx._src.readouts.moments import expected_covariance, expected_index, expected_spread
from softmaxx._src.readouts.perturbed_argmax import perturbed_argmax
from softmaxx._src.readouts.positions import pixel_positions, unit_positions
from softmaxx._src.readouts.soft_argmax import soft_argmax, sparse_argmax
from softmaxx._src.smoothings.perturbed import perturbed, standard_error
from softmaxx._src.smoothings.regularized import regularized
from softmaxx._src.smoothings.tsallis import entropic, euclidean, tsallis

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
