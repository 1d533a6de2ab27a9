"""Smoothings: pairs of the smoothed max [] and its gradient, the soft answer [n].

tsallis.py       entropic, euclidean and every α, along an axis
regularized.py   of your own argmax and penalty
perturbed.py     of any oracle by noise, with perturbed_means.py
sparsemap.py     of any oracle by the squared norm: the point by nearest_point.py, its Jacobian
                 by face.py
dynamic.py       of a dynamic program, by smoothing each of its maxima
"""
