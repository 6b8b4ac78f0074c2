"""Baselines: the same computations as one would first write them in PyTorch, for comparison and to test against.

In: the engine's configurations and weights. Out: a loss, a step, samples, a probe's weights.
"""
