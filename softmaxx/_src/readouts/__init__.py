"""Readouts: scores or weights [n] → an index, coordinates or a deviation []."""
