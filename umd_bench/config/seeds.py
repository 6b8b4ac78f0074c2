"""The source of all randomness: a seed that depends on (seed, purpose, index), and not on anything that ran before.

Every random generator in the project is seeded with :func:`derive_seed`. So two trials with the same seed get the same images,
noise and initial weights wherever the shapes allow it, a resumed run continues bit for bit, and sample ``i`` of a generated set
is the same for every batch size.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, *index: int | str) -> int:
    """A 63-bit seed for ``torch.Generator`` or ``numpy.random.default_rng``.

    ``seed`` is the trial's, ``purpose`` names the use ("order", "noise", ...), and ``index`` tells the draws of one use apart
    (images seen so far, the epoch, the sample's number, a parameter's name).

    A CPU ``torch.Generator`` uses only the low 32 bits, so among 77,000 of its streams two are equal with probability 1/2. Two
    steps or samples may therefore share their noise. This is rare and causes no bias. Use numpy where streams have to differ.
    """
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
