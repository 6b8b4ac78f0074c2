"""The verbs, one file per group: sweeps, monitoring, single runs, data sets, extractors, tiers, MLflow, this machine, and
umd-bench itself.

A verb reads its options, calls functions of other packages and prints what they return.
"""
