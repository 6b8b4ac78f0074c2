"""What a trial is: data, model, noise process and stages.

In: validated fields. Out: a ``TrialConfig``, and a ``StageSpec`` with its key for each stage.
"""
