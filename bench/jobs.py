"""Tasks that the measuring processes share."""

from __future__ import annotations

import os
import time

from boost_core import boost


@boost("bench.noop", concurrency=8)
def noop(number: int) -> None:
    """Do nothing."""


@boost("bench.stamp", concurrency=8)
def stamp(pushed: float) -> None:
    """Note down how long ago this job was pushed, in seconds of the machine's monotonic clock."""
    _append(f"{time.monotonic() - pushed}\n")


@boost("bench.hold", concurrency=16)
def hold(number: int) -> None:
    """Note the start, run until the file BENCH_GO is there, note the end."""
    _append(f"start {number} {os.getpid()} {time.monotonic()}\n")
    while not os.path.exists(os.environ["BENCH_GO"]):
        time.sleep(0.005)
    _append(f"end {number} {os.getpid()} {time.monotonic()}\n")


def _append(line: str) -> None:
    descriptor = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
