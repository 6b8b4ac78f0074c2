"""The verbs, a file for each group: sweeps, what runs and has run, single runs, data sets, extractors, MLflow, this machine.

A verb reads its options, calls one function of another room and prints what comes back.
"""
