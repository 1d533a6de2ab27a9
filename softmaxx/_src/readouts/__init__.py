"""Readouts: scores → an index, coordinates, a spread."""
