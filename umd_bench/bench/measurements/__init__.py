"""One benchmark a file, each called by its verb `umd-bench bench NAME`.

In: what to measure and how often. Out: a :class:`~umd_bench.bench.tables.BenchResult`.
"""
