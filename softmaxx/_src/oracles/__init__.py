"""Oracles: scores → a vertex of the choice set, the hard answer."""
