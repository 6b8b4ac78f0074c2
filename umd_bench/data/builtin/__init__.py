"""Data sets that need no download by the user: digits from scikit-learn, others from Debian packages.

In: the installed package. Out: arrays of images and labels.
"""
