"""`python -m analysis [--results DIR] [--out DIR]`: every table and figure from results/ alone.

Exit codes: 0 at least one was made, 2 none was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.regenerate import regenerate


def main(arguments: list[str] | None = None) -> int:
    """Regenerate, one line a sweep; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Every table and figure from results/ alone.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder [results]")
    parser.add_argument("--out", type=Path, help="folder to write into [RESULTS/analysis]")
    options = parser.parse_args(arguments)
    out = options.out or options.results / "analysis"
    made = 0
    for outcome in regenerate(options.results, out):
        if outcome.folder is not None:
            made += 1
            print(f"{outcome.name}: {outcome.folder}")
        else:
            print(f"{outcome.name}: not made: {outcome.lacking}")
    if made:
        print(f"index: {out / 'README.md'}")
        return 0
    print(f"analysis: nothing in {options.results} to make a table of; expected the results folder of a sweep", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
