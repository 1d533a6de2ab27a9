"""Losses: scores and targets → a number for each choice."""
