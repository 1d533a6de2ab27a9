"""What every room stands on.

types.py         the types of the public signatures
dtypes.py        the dtype that is computed in, and casts into it
masks.py         the rule for a masked entry
indices.py       where an entry stands
permuting.py     slices in another order, and back
two_floats.py    sums and products of two floats without rounding
float_order.py   the floats as integers in the same order
elementary.py    functions with safe derivatives: √, log, x·log x
rules.py         what the derivative rules of choices share
rank_one.py      the derivative of every choice, as one operation
attached.py      values with a derivative that is computed apart
trees.py         inner products and norms of trees of arrays
reductions.py    sums that move no shard between devices
pyramid.py       few of the scores, on which a search starts
sharding.py      arrays that keep a sharding, and what the compiler may not do
checks/          every error message
"""
