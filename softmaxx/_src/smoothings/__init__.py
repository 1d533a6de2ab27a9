"""Smoothings: the pair of a smoothed max and its gradient."""
