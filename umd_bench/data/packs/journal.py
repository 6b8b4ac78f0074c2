"""The journal of a packing: its inputs, then one line for each finished shard, so that a killed packing can be continued."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.data.packs.manifest import images_file, sha256_of


@dataclass(frozen=True)
class FinishedShard:
    """A line of the journal: a shard, the hash of its file, and the rows that were left out (index -> reason)."""

    split: str
    index: int
    sha256: str
    skipped: dict[int, str]


def begin_journal(journal: Path, identity: str, finished: Iterable[FinishedShard]) -> None:
    """Write a journal with the ``identity`` of the inputs and the shards that are finished already."""
    lines = [json.dumps(identity), *(json.dumps(vars(shard)) for shard in finished)]
    journal.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def append_shard(journal: Path, shard: FinishedShard) -> None:
    """Append a finished shard and sync."""
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(shard)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_journal(journal: Path, identity: str, files: Path) -> list[FinishedShard]:
    """The finished shards whose files are unchanged; none if the journal is of other inputs. Incomplete lines are ignored."""
    try:
        first, *lines = journal.read_text(encoding="utf-8").splitlines()
        if json.loads(first) != identity:
            return []
    except (OSError, ValueError):
        return []
    finished = []
    for line in lines:
        try:
            entry = json.loads(line)
            skipped = {int(i): str(reason) for i, reason in entry["skipped"].items()}
            shard = FinishedShard(entry["split"], entry["index"], entry["sha256"], skipped)
            if sha256_of(files / images_file(shard.split, shard.index)) == shard.sha256:
                finished.append(shard)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return finished


def has_finished(journal: Path) -> bool:
    """Whether the journal has at least one finished shard."""
    return journal.exists() and len(journal.read_bytes().splitlines()) > 1
