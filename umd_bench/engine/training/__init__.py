"""The training loop, its state, and its output.

In: a training stage and a pack. Out: snapshots, checkpoints and metrics in a run directory. ``loop.py`` is the way in.
"""
