"""The training loop and what it carries from step to step.

In: a training stage and a pack. Out: snapshots, checkpoints and metrics in a run directory.
"""
