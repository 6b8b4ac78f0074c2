"""The models of a trial: data, model, noise process and stages, and the rules by which each stage forms its key.

In: validated fields. Out: a ``TrialConfig``, and a ``StageSpec`` with its key for each stage.
"""
