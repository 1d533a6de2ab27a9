"""Choices: scores → a point of the hull of the choice set, regularised."""
