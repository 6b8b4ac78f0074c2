"""Times a piece of work and describes the machine it ran on.

In: a function that does the work and returns its number of images. Out: images per second, peak memory, shares of the time.
"""
