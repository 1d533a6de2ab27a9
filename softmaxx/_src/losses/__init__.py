"""Losses: scores and targets → one number for each choice."""
