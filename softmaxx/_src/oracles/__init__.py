"""Oracles: scores [n] → the hard answer [n], the vertex y with the largest ⟨scores, y⟩."""
