"""Weights that others published: their file formats, their parameter layouts, and architectures other than ours.

In: a checkpoint file. Out: a model's configuration and its parameters under our names. ``layouts.py`` is the way in.
"""
