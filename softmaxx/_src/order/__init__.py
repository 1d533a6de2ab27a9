"""Ranks with a gradient."""
