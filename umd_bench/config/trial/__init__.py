"""The models of a trial: data, model, noise process and stages, with the rules that each stage has for its key.

In: validated fields. Out: a ``TrialConfig``, and a ``StageSpec`` with its key for each stage.
"""
