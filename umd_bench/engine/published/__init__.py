"""Weights that others published: their file formats, their parameter layouts, and the architectures that are not ours."""
