"""Baselines: the same computations in simple PyTorch, which benchmarks and tests compare the package with.

In: the engine's configurations and weights. Out: a loss, a step, samples, a probe's weights.
"""
