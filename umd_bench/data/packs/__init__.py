"""Packed data sets: memory-mapped arrays with a manifest of hashes.

In: arrays and facts. Out: a ``Pack`` whose splits are read without copying.
"""
