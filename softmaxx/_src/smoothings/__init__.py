"""Smoothings: pairs of the smoothed max [] and its gradient, the soft answer [n]."""
