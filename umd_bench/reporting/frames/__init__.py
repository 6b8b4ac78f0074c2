"""Run directories as tidy pandas frames.

In: records of sweeps and results of stages. Out: one row per number, with its provenance.
"""
