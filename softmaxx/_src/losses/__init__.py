"""Losses: scores and targets → a number for each choice.

entmax_loss.py          of labels and distributions, by smoothed_loss.py
structured.py           Fenchel–Young losses of a smoothed max, SPO+ of an oracle
linear_entmax_loss.py   the same as entmax_loss from features and weights, with linear_targets.py
linear_loss.py          what it computes of a row; the scores come in blocks of classes:
                        blocked_layer.py, blocked_choice.py, blocked_loss.py
divergences.py          Kullback–Leibler and Jensen–Shannon
coordinate_loss.py      the distance of soft coordinates
heatmap_losses.py       to a Gaussian, which gaussian_heatmap.py draws
"""
