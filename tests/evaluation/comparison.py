"""One line of the table of agreement with independent implementations."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One comparison: the compared quantity, the other implementation, and the largest relative difference."""

    quantity: str
    library: str
    difference: float
