"""Estimators: scores [n] → a hard answer [n], with another function in the backward pass."""
