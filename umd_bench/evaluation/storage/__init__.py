"""Arrays and rows on disk, named by the hash of all that they depend on.

In: arrays. Out: the same arrays, in this process or a later one.
"""
