"""The check of a tier: five gates that decide whether its numbers may be trusted to order methods as the large scale does.

In: a results folder with the sweep `methods` at the tier. Out: a :class:`~umd_bench.config.sweep.tier_card.TierCard`, and
docs/tiers.md from all cards. ``check.py`` puts the card together. ``probe_gates``, ``sample_gate``, ``power`` and ``agreement``
judge one or two gates each, from the :class:`~analysis.tier_card.numbers.Numbers` of the sweep. ``looks`` counts how often a
split was read.
"""
