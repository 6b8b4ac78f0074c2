"""Where all randomness comes from: a number that depends on (seed, purpose, index) and on nothing that ran before.

Every generator in the project is seeded with :func:`derive_seed`. Two trials with one seed therefore see the same
images, noise and initial weights wherever the shapes allow, a resumed run continues bit for bit, and sample ``i`` of a
generated set is the same whatever the batch size.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, *index: int | str) -> int:
    """A 63-bit seed for ``torch.Generator`` or ``numpy.random.default_rng``.

    A CPU ``torch.Generator`` uses the low 32 bits only: among 77,000 of its streams, two are alike with even odds. That is a
    rare shared noise between two steps or samples, not a bias; where streams must be distinct, use numpy's.

    ``seed`` is the trial's, ``purpose`` names the use ("order", "noise", ...), ``index`` says which one of that use
    (the images seen so far, the epoch, the sample's number, a parameter's name).
    """
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
