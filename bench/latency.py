"""From push to start across processes on an idle queue, and what an idle worker costs."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from bench.measure import Figure, bound
from bench.processes import Place, place

PUSHES = 300
IDLE_SECONDS = 10.0


def figures() -> list[Figure]:
    """Return the latency and idle figures."""
    with place() as its:
        worker = its.worker()
        waits = _waits(its)
        time.sleep(1.0)
        cpu, memory = idle(worker.pid, IDLE_SECONDS)
    hundredths = statistics.quantiles(waits, n=100)
    note = "sqlite, another process, ack after the run"
    return [
        bound("push to start, idle queue, p50", waits, statistics.median(waits), "ms", 5.0, note),
        bound("push to start, idle queue, p99", waits, hundredths[98], "ms", 25.0, note),
        bound("idle worker, share of a core", [cpu], cpu, "%", 1.0, f"over {IDLE_SECONDS:g} s"),
        bound("idle worker, resident memory", [memory], memory, "MB", 50.0),
    ]


def _waits(its: Place) -> list[float]:
    """Return the milliseconds of single pushes, each onto a queue that has been idle for a while."""
    from bench.jobs import stamp

    for number in range(PUSHES + 10):
        stamp.push(time.monotonic())
        its.await_notes(number, "a stamp")
        time.sleep(0.02)
    return [float(line) * 1000 for line in its.notes()][10:]


def idle(pid: int, seconds: float) -> tuple[float, float]:
    """Return a process's share of a core in percent over so many seconds, and its memory in MB."""
    before = _cpu_seconds(pid)
    time.sleep(seconds)
    share = (_cpu_seconds(pid) - before) / seconds * 100
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return share, pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, in seconds, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
