"""Baselines: the package's computations in simple PyTorch. Benchmarks and tests compare the package with them.

In: the engine's configurations and weights. Out: a loss, a step, samples, a probe's weights.
"""
