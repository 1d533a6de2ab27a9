"""Order: ranks, sorted scores, quantiles and permutations with a gradient.

soft_ranking.py, soft_sort.py   projections onto the permutahedron, by isotonic.py
soft_permutation.py             [n, n], a choice for each place of the order
soft_quantile.py                the median and others without sorting, by blurred_quantile.py
expected_ranking.py             mean ranks under noise, by sorting or by pairs
sorted_slices.py                slices in ascending order, and means over blocks of them
"""
