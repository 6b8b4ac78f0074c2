"""Several trainings of one shape as one: weights are stacked, the forward pass is the public one.

In: training stages of one shape. Out: what each of them would have written alone, within tolerances.
"""
