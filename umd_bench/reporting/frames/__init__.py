"""Run directories as tidy pandas frames.

In: records of sweeps and results of stages. Out: one row a number, with its provenance.
"""
