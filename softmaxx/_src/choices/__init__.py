"""Choices: scores [n] → weights [n], and the engine that finds their threshold."""
