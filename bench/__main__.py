"""Print all figures, or those named: ``python -m bench [memory|sqlite|latency|takeover|imports]...``.

With a broker in BROKER that has a server, those of that broker.
"""

from __future__ import annotations

import os
import subprocess
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
    broker = os.environ.get("BROKER", "sqlite")
    if broker != "sqlite" and not names:
        return _measure_broker(broker)
    missed = 0
    for name in names or NAMES:
        for figure in import_module(f"bench.{name}").figures():
            print(figure, flush=True)
            missed += not figure.holds
    return 1 if missed else 0


def _measure_broker(broker: str) -> int:
    groups = import_module("bench.servers").GROUPS
    commands = [[sys.executable, "-m", "bench.servers", broker, group] for group in groups]
    codes = [subprocess.run(command, check=False).returncode for command in commands]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
