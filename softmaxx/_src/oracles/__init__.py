"""Oracles: scores [n] → the hard answer [n], the vertex with the largest sum of scores."""
