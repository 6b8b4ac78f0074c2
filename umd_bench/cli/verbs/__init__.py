"""The verbs, one file a group: sweeps, monitoring, single runs, data sets, extractors, tiers, MLflow, this machine.

A verb reads its options, calls one function of another package and prints what it returns.
"""
