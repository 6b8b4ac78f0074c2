"""`python -m analysis [--results DIR] [--out DIR]`, also `umd-bench paper`: every table and figure, from results alone.

Exit codes: 0 at least one was made, 2 none was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.regenerate import regenerate


def main(arguments: list[str] | None = None) -> int:
    """Read the arguments and make everything; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Make every table and figure from a results folder, and an index of them."
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--out", type=Path, help="folder to write into (default: analysis/ in the results folder)")
    options = parser.parse_args(arguments)
    return make_all(options.results, options.out)


def make_all(results: Path, out: Path | None = None) -> int:
    """Make every item that the results allow, below ``out``, and print one line for each; returns the exit code."""
    out = out or results / "analysis"
    made = 0
    for outcome in regenerate(results, out):
        if outcome.folder is not None:
            made += 1
            print(f"{outcome.name}: {outcome.folder}")
        else:
            print(f"{outcome.name}: not made: {outcome.reason}")
    if made:
        print(f"index: {out / 'README.md'}")
        return 0
    print(f"analysis: nothing in {results} to make a table of; expected the results folder of a sweep", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
