"""Built-in data sets, which are found or made on this machine: digits, contrast16, Fashion-MNIST, emoji.

In: an installed package, a folder of raw files, or (Fashion-MNIST, if it is not here) a download. Out: arrays of images and
labels by split.
"""
