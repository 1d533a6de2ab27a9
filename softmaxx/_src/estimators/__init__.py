"""Estimators: the hard answer of an oracle, with another backward pass."""
