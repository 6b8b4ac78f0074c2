"""One benchmark per file, each called by `umd-bench bench NAME`.

In: the configuration to measure, and the number of repeats. Out: a :class:`~umd_bench.bench.tables.BenchResult`.
"""
