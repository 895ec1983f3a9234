"""Print all figures, or those named: ``python -m bench [memory|sqlite|latency|takeover|imports]...``."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = ("imports", "memory", "sqlite", "latency", "takeover")


def main(names: list[str]) -> int:
    """Measure, print as it goes, and return 1 where a figure misses its goal."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no figures named {unknown[0]!r}; there are: {', '.join(NAMES)}")
        return 2
    print("medians of interleaved pairs, with the quartiles (or the range) in brackets")
    missed = 0
    for name in names or NAMES:
        for figure in import_module(f"bench.{name}").figures():
            print(figure, flush=True)
            missed += not figure.holds
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
