"""The mathematics: noise schedules, the noise process, corruption, the objective.

In: clean images and random draws. Out: corrupted images, targets and losses.
"""
