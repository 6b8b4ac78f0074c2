"""Names of cache files: a hash of everything that the contents depend on, so that an entry can never be out of date."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch


def cache_name(inputs: Any) -> str:
    """32 hex digits: the SHA-256 of ``inputs`` (numbers, strings, lists, dicts) as JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def numeric_environment(device: torch.device) -> tuple[str, int, str]:
    """Device kind, CPU threads and torch version: they change the last bits of a float32 result."""
    return device.type, torch.get_num_threads(), torch.__version__
