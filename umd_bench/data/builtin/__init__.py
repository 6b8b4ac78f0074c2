"""Built-in data sets, which are found or made on this machine: digits, contrast16, Fashion-MNIST, emoji.

In: an installed package, or a folder of raw files. Out: arrays of images and labels by split.
"""
