"""Noise: what perturbs scores, and means over it.

noises.py            the noises, and the score function of each
differences.py       the distribution of the difference of two draws
normal_quantile.py   the quantile of the normal noise, in both tails
sum_of_gamma.py      the noise of a choice of k entries
samplers.py          the uniform numbers that noise is made of
expectation.py       the mean of a function of perturbed scores, with its derivatives
score_function.py    how the density of perturbed scores changes: the derivatives come from it
"""
