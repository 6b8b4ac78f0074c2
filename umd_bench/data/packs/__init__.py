"""Packs: data sets as memory-mapped arrays with a manifest of hashes.

In: rows, labels and facts. Out: a ``Pack`` whose splits are memory-mapped.
"""
