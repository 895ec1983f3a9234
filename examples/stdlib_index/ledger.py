"""Reads the jobs' own notes: who ran what, how often, and what a killed worker left unfinished."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

BATCH = 64
"""How many ended jobs boost acknowledges together at most; a kill in between repeats them."""


@dataclass
class Ledger:
    """All notes, by job: (time, process) of each start, and of each end."""

    starts: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Return the notes in a file; a torn last line is what a kill leaves, and is passed over."""
        ledger = cls()
        for line in path.read_text().splitlines():
            try:
                note = json.loads(line)
            except ValueError:
                continue
            notes = ledger.starts if note["event"] == "start" else ledger.ends
            notes[note["job"]].append((note["at"], note["pid"]))
        return ledger

    def touched_by(self, pid: int) -> set[str]:
        """Return the jobs that a process started."""
        return {job for job, notes in self.starts.items() if any(who == pid for _, who in notes)}

    def unfinished_by(self, pid: int) -> set[str]:
        """Return the jobs that a process started and never ended."""
        return {job for job in self.touched_by(pid) if not any(who == pid for _, who in self.ends[job])}

    def just_ended_by(self, pid: int) -> set[str]:
        """Return the jobs that a process ended last: at most so many await their acknowledgement together."""
        ends = sorted((at, job) for job, notes in self.ends.items() for at, who in notes if who == pid)
        return {job for _, job in ends[-BATCH:]}

    def run_twice(self) -> set[str]:
        """Return the jobs that were started more than once."""
        return {job for job, notes in self.starts.items() if len(notes) > 1}

    def taken_over_after(self, pid: int, killed_at: float) -> list[float]:
        """Return, for each unfinished job of a killed process, the seconds until another one started it."""
        waits = []
        for job in self.unfinished_by(pid):
            later = [at for at, who in self.starts[job] if who != pid and at >= killed_at]
            if later:
                waits.append(min(later) - killed_at)
        return sorted(waits)
