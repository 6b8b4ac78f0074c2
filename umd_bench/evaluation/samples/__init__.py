"""Samples: drawing them, and scoring them against real images.

In: weights, or a file of samples. Out: scores against a reference, each with facts about its inputs.
"""
