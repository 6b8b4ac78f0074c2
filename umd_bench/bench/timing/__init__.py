"""Times a piece of work and describes the machine it ran on.

In: a function that does the work and returns how many images it processed. Out: images per second, peak memory, and how
much of the time each kind of operation takes.
"""
