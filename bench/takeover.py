"""How long until another worker runs what a killed one held."""

from __future__ import annotations

import os
import signal
import statistics
import time

from bench.measure import Figure, bound
from bench.processes import Place, place, until

KILLS = 50
RUNNING = 16


def figures(kills: int = KILLS) -> list[Figure]:
    """Return the take-over time over many kills, and what was lost or run without need."""
    waits: list[float] = []
    lost = excess = 0
    with place() as its:
        for _ in range(kills):
            wait, missing, more = kill(its)
            waits.append(wait)
            lost, excess = lost + missing, excess + more
    note = f"sqlite, {kills} kills -9 with {RUNNING} running jobs each"
    return [
        bound(
            "take-over after kill -9, worst",
            waits,
            max(waits),
            "s",
            2.0,
            f"{note}; median {statistics.median(waits):.2f} s",
        ),
        bound("jobs lost", [lost], lost, "", 0, note),
        bound("runs beyond the killed ones", [excess], excess, "", 0, note),
    ]


def kill(its: Place) -> tuple[float, int, int]:
    """Kill a worker that runs 16 jobs while another one is free; return seconds, lost jobs, needless runs."""
    from bench.jobs import hold

    its.clear()
    first = its.worker()
    hold.push_many((number,) for number in range(RUNNING))
    until(lambda: _starts(its, first.pid) == RUNNING, "the first worker to run all jobs")
    second = its.worker()
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    first.wait()
    until(lambda: _starts(its, second.pid) >= RUNNING, "the second worker to run all jobs")
    its.go_path.touch()
    until(lambda: hold.wait_idle(0), "the queue to be empty")
    second.terminate()
    second.wait(timeout=40)
    notes = [line.split() for line in its.notes()]
    last = max(float(at) for event, _, pid, at in notes if event == "start" and int(pid) == second.pid)
    ended = [number for event, number, _, _ in notes if event == "end"]
    starts = sum(event == "start" for event, *_ in notes)
    return last - killed, RUNNING - len(set(ended)), starts - 2 * RUNNING


def _starts(its: Place, pid: int) -> int:
    return sum(line.split()[0] == "start" and line.split()[2] == str(pid) for line in its.notes())
