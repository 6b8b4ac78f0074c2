"""One line of the table of agreement with independent implementations."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One comparison: what is compared, with whose implementation, and the largest relative difference."""

    what: str
    library: str
    difference: float
