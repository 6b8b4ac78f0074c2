"""One measurement a file.

In: a tier or a size. Out: rows of medians, ranges and ratios.
"""
