"""The paper's tables and figures, made again from a results folder alone: `umd-bench paper`, or `python -m analysis`.

In: a results folder and the published numbers in ``paper/*.yaml``. Out: a folder for each item of :mod:`analysis.items`, and
an index. :mod:`analysis.regenerate` does the work.
"""
