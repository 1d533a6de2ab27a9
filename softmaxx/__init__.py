"""Differentiable argmax for JAX, used as `import softmaxx as sx`; this is the map of its names.

A set of possible answers is given by an oracle: scores → the answer y with the largest ⟨scores, y⟩.
A smoothing replaces this maximum by a smooth function, and its gradient is the soft answer. Every
name below is of one kind, and a kind says what goes in and what comes out. `[n]` is the axis of the
choice.

Choices: scores [n] → weights [n], a point of the hull of the answers.
  softmax, sparsemax, entmax          weights that sum to 1: dense, sparse, any α between and beyond
  log_softmax                         the logarithms of the weights of softmax
  expm1_softmax                       softmax without the weight of an empty background
  soft_top_k                          weights that sum to k, each with a cap
  threshold_map                       weights from your own squashing function
  expected_ranking                    the mean ranks of scores under noise
  soft_ranking, soft_sort             ranks and sorted scores, projected onto the permutahedron
  soft_permutation                    [n, n]: for each place of the order a choice of the scores

Oracles: scores [n] → the hard answer [n], a vertex; its gradient is 0.
  one_hot_argmax, top_k_mask          1 at the largest score, or at the k largest
  ranking                             the rank of each score
  best_grid_path, best_chain, best_alignment
                                      the best way through a grid, a chain of states, two sequences
  dynamic_oracle                      your own dynamic program, from its recursion alone
  row_oracle, host_oracle             your own solver, one that takes many rows, or one in NumPy

Readouts: scores or weights [n] → a number [], in the units of the axis.
  soft_argmax, sparse_argmax          the mean index of softmax or entmax weights
  perturbed_argmax                    the mean index of the largest score under noise
  local_argmax, find_peaks, Peaks     the index of the highest peak, or of several
  expected_index, expected_spread, expected_covariance
                                      mean, deviation and covariance of the index under weights
  pixel_positions, unit_positions     the units of the axis: `positions=` of a readout
  entropy, support_size               how sure the weights are, and how many are not 0
  threshold                           the score from which on entries have weight
  soft_quantile                       the median and other quantiles, without sorting

Smoothings: make a pair `SmoothMax(argmax, value)`: the soft answer [n] and the smoothed max [].
  entropic, euclidean, tsallis        of a simplex, by an entropy: along an axis
  regularized                         of your own argmax and penalty: one instance
  perturbed, standard_error           of any oracle, by noise: one instance
  sparsemap, convex_combination       of any oracle, by the squared norm: one instance
  dynamic                             of a dynamic program, from inside: one instance
  grid_path, chain, alignment         recursions for it, those of the oracles best_…
  SmoothMax                           the type of the pair

Estimators: scores [n] → the hard answer [n], with another function in the backward pass.
  straight_through, identity_gradient, interpolated, implicit_mle
                                      of any oracle
  adaptive_strength                   finds the strength of the last two
  gumbel_softmax, hard_gumbel_softmax, reinmax, gumbel_rao, gumbel_top_k
                                      samples of a categorical distribution

Losses: scores and targets → a number for each choice.
  fenchel_young_loss, spo_plus_loss   train a smoothing, or an oracle by its costs
  entmax_loss, sparsemax_loss         train weights by labels or distributions
  linear_entmax_loss, LinearTargets   train the last layer, by labels, distributions or a teacher
  coordinate_loss                     trains coordinates
  kl_divergence, js_divergence        of two distributions
  variance_loss, kl_to_gaussian, js_to_gaussian, gaussian_heatmap
                                      train heatmaps; the last draws the target

Noises and samplers: what `perturbed` and its relatives draw, and how.
  normal, gumbel, logistic, laplace, exponential, log_normal, sum_of_gamma, Noise
  independent, antithetic, latin_hypercube, sobol, Sampler
"""
# ruff: noqa: I001, RUF022  (imports and names stand in the order of the map)

from softmaxx._src.choices.simplex import entmax, softmax, sparsemax
from softmaxx._src.choices.log_softmax import log_softmax
from softmaxx._src.choices.expm1_softmax import expm1_softmax
from softmaxx._src.choices.soft_top_k import soft_top_k
from softmaxx._src.choices.threshold_map import threshold_map
from softmaxx._src.order.expected_ranking import expected_ranking
from softmaxx._src.order.soft_ranking import soft_ranking
from softmaxx._src.order.soft_sort import soft_sort
from softmaxx._src.order.soft_permutation import soft_permutation

from softmaxx._src.oracles.vertices import one_hot_argmax, top_k_mask
from softmaxx._src.oracles.ranking import ranking
from softmaxx._src.oracles.best_grid_path import best_grid_path
from softmaxx._src.oracles.best_chain import best_chain
from softmaxx._src.oracles.best_alignment import best_alignment
from softmaxx._src.oracles.dynamic_oracle import dynamic_oracle
from softmaxx._src.oracles.row_oracle import row_oracle
from softmaxx._src.oracles.host_oracle import host_oracle

from softmaxx._src.readouts.soft_argmax import soft_argmax, sparse_argmax
from softmaxx._src.readouts.perturbed_argmax import perturbed_argmax
from softmaxx._src.readouts.local_argmax import local_argmax
from softmaxx._src.readouts.find_peaks import Peaks, find_peaks
from softmaxx._src.readouts.moments import expected_covariance, expected_index, expected_spread
from softmaxx._src.readouts.positions import pixel_positions, unit_positions
from softmaxx._src.readouts.entropy import entropy
from softmaxx._src.readouts.support_size import support_size
from softmaxx._src.readouts.threshold import threshold
from softmaxx._src.order.soft_quantile import soft_quantile

from softmaxx._src.core.types import SmoothMax
from softmaxx._src.smoothings.tsallis import entropic, euclidean, tsallis
from softmaxx._src.smoothings.regularized import regularized
from softmaxx._src.smoothings.perturbed import perturbed, standard_error
from softmaxx._src.smoothings.sparsemap import convex_combination, sparsemap
from softmaxx._src.smoothings.dynamic import dynamic
from softmaxx._src.oracles.best_grid_path import grid_path
from softmaxx._src.oracles.best_chain import chain
from softmaxx._src.oracles.best_alignment import alignment

from softmaxx._src.estimators.straight_through import straight_through
from softmaxx._src.estimators.identity_gradient import identity_gradient
from softmaxx._src.estimators.interpolated import interpolated
from softmaxx._src.estimators.implicit_mle import implicit_mle
from softmaxx._src.estimators.adaptive_strength import adaptive_strength
from softmaxx._src.estimators.gumbel_softmax import gumbel_softmax, hard_gumbel_softmax
from softmaxx._src.estimators.reinmax import reinmax
from softmaxx._src.estimators.gumbel_rao import gumbel_rao
from softmaxx._src.estimators.gumbel_top_k import gumbel_top_k

from softmaxx._src.losses.structured import fenchel_young_loss, spo_plus_loss
from softmaxx._src.losses.entmax_loss import entmax_loss, sparsemax_loss
from softmaxx._src.losses.linear_entmax_loss import linear_entmax_loss
from softmaxx._src.losses.linear_targets import LinearTargets
from softmaxx._src.losses.coordinate_loss import coordinate_loss
from softmaxx._src.losses.divergences import js_divergence, kl_divergence
from softmaxx._src.losses.heatmap_losses import js_to_gaussian, kl_to_gaussian, variance_loss
from softmaxx._src.losses.gaussian_heatmap import gaussian_heatmap

from softmaxx._src.noise.noises import (
    Noise,
    exponential,
    gumbel,
    laplace,
    log_normal,
    logistic,
    normal,
)
from softmaxx._src.noise.samplers import Sampler, antithetic, independent, latin_hypercube, sobol
from softmaxx._src.noise.sum_of_gamma import sum_of_gamma

__version__ = "0.2.0"

__all__ = [
    # choices: scores → weights
    "softmax",
    "sparsemax",
    "entmax",
    "log_softmax",
    "expm1_softmax",
    "soft_top_k",
    "threshold_map",
    "expected_ranking",
    "soft_ranking",
    "soft_sort",
    "soft_permutation",
    # oracles: scores → the hard answer
    "one_hot_argmax",
    "top_k_mask",
    "ranking",
    "best_grid_path",
    "best_chain",
    "best_alignment",
    "dynamic_oracle",
    "row_oracle",
    "host_oracle",
    # readouts: scores or weights → a number in the units of the axis
    "soft_argmax",
    "sparse_argmax",
    "perturbed_argmax",
    "local_argmax",
    "find_peaks",
    "Peaks",
    "expected_index",
    "expected_spread",
    "expected_covariance",
    "pixel_positions",
    "unit_positions",
    "entropy",
    "support_size",
    "threshold",
    "soft_quantile",
    # smoothings: the pair of a soft answer and a smoothed max
    "SmoothMax",
    "entropic",
    "euclidean",
    "tsallis",
    "regularized",
    "perturbed",
    "standard_error",
    "sparsemap",
    "convex_combination",
    "dynamic",
    "grid_path",
    "chain",
    "alignment",
    # estimators: the hard answer, with another backward pass
    "straight_through",
    "identity_gradient",
    "interpolated",
    "implicit_mle",
    "adaptive_strength",
    "gumbel_softmax",
    "hard_gumbel_softmax",
    "reinmax",
    "gumbel_rao",
    "gumbel_top_k",
    # losses: scores and targets → a number for each choice
    "fenchel_young_loss",
    "spo_plus_loss",
    "entmax_loss",
    "sparsemax_loss",
    "linear_entmax_loss",
    "LinearTargets",
    "coordinate_loss",
    "kl_divergence",
    "js_divergence",
    "variance_loss",
    "kl_to_gaussian",
    "js_to_gaussian",
    "gaussian_heatmap",
    # noises and samplers
    "normal",
    "gumbel",
    "logistic",
    "laplace",
    "exponential",
    "log_normal",
    "sum_of_gamma",
    "Noise",
    "independent",
    "antithetic",
    "latin_hypercube",
    "sobol",
    "Sampler",
]
