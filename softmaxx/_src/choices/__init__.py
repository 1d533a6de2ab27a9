"""Choices: scores [n] → weights [n], a point of the hull of the answers, by a regulariser.

Each is one equation, Σ φ((x − τ)/T) = k for the threshold τ of a slice. Nothing is sorted: the sum
falls in τ, and to find where it is k takes a few passes over the scores. On a CPU a sort costs more
than a hundred softmaxes.

The public ones:

  simplex.py          softmax, sparsemax, entmax
  log_softmax.py      the logarithm of softmax
  soft_top_k.py       weights that sum to k, each with a cap
  threshold_map.py    weights from your own function φ
  expm1_softmax.py    a softmax without the weight of a background

and what they stand on, from the top down:

  smoothed_max.py     the choice and the smoothed max on the simplex, with their derivative rules
  simplex_loss.py     the loss that belongs to them
  simplex_threshold.py  the search for their threshold
  support.py          its step for α = 1.5 and 2, from sums over the support
  any_alpha.py        its step for any other α
  measure.py          how p follows from the scores and a threshold of two floats
  sum_threshold.py    the search for the threshold of any other φ
  engine.py           scores in units of T; a search by steps of your own, for losses and quantiles
  powers.py           the function φ of each α, and its derivatives
"""
