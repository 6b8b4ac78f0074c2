"""Samples: drawing them from weights, writing them to files, and scoring them against real images.

In: weights, or a file of samples. Out: files and grids of samples, and their scores, each with facts about its inputs.
"""
