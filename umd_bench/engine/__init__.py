"""Everything that is computed with one model: noise schedules, corruption, the objective, the network, training and samplers.

In: a stage's configuration and a pack of images. Out: trained weights and samples. The order of the subpackages is a contract
in pyproject.toml.
"""
