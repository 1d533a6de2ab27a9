"""The code behind `import softmaxx as sx`, room by room; private.

A file imports from its own room and from lower floors, never sideways and never up:

    core < oracles, choices, noise < order, smoothings, readouts, estimators < losses
"""
