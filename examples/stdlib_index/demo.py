"""Index the standard library with three workers, kill one of them with -9 half way, and prove the result complete.

Run it with ``make demo``. It works in a folder and on a queue of its own, whatever boost is told elsewhere, and leaves
nothing behind; only ``BOOST_BROKER`` counts. A folder of other sources may be named: ``python demo.py FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boost_core import Job
    from boost_core.app.task import Task
    from ledger import Ledger

HERE = Path(__file__).parent
WORKERS = 3
PATIENCE = 600.0
RESULT_SECONDS = 10.0
INTERRUPTED = 130


@dataclass
class Run:
    """What a distributed run gave."""

    results: dict[str, dict[str, Any]]
    dead: dict[str, str]
    jobs: dict[str, str]
    seconds: float
    killed_pid: int
    killed_at: float
    killed_at_share: float
    worker_log: str = field(repr=False, default="")

    @property
    def missing(self) -> set[str]:
        """The files of which nothing was heard."""
        return set(self.jobs.values()) - set(self.results) - set(self.dead)


def sources(root: Path) -> list[str]:
    """Return the source files below ``root``, relative to it, in a fixed order; installed packages are left out."""
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(str(path) for path in paths if "site-packages" not in path.parts)


def main(arguments: list[str]) -> int:
    """Run the demo; return 0 if its result is proven complete."""
    root = Path(arguments[0] if arguments else sysconfig.get_paths()["stdlib"]).resolve()
    with tempfile.TemporaryDirectory(prefix="boost-demo-") as folder, contextlib.chdir(folder):
        ledger = Path(folder, "ledger.jsonl")
        os.environ["STDLIB_INDEX_LEDGER"] = str(ledger)
        use_queue_in(Path(folder))
        paths = sources(root)
        if not paths:
            raise SystemExit(f"there are no source files in {root}")
        print(f"{len(paths)} source files in {root}, Python {sys.version.split()[0]}")
        run = distributed(root, paths, Path(folder))
        print("now the same in one plain loop, to compare ...")
        expected, unparsable, seconds = sequential(root, paths)
        return report(run, expected, unparsable, seconds, ledger)


def use_queue_in(folder: Path) -> None:
    """Leave the user's own queue and settings alone, here and in the workers."""
    for name in [name for name in os.environ if name.startswith("BOOST_") and name != "BOOST_BROKER"]:
        del os.environ[name]
    os.environ["BOOST_SQLITE_PATH"] = str(folder / "queue.db")


def distributed(root: Path, paths: list[str], folder: Path) -> Run:
    """Push a job a file, work on them with three processes, and kill one of them half way."""
    from tasks import index_file

    workers: list[subprocess.Popen[bytes]] = []
    log = Path(folder, "workers.log")
    try:
        started = time.monotonic()
        jobs = index_file.push_many(index_file.call(str(root), path) for path in paths)
        print(f"pushed {len(jobs)} jobs in {time.monotonic() - started:.2f} s; starting {WORKERS} workers")
        with log.open("wb") as output:
            for _ in range(WORKERS):
                workers.append(start_worker(output))  # noqa: PERF401 - Ctrl-C in between stops those that are there
        begun = time.monotonic()
        share = watch(index_file, len(jobs), workers, until=0.5)
        victim = stopped_at_work(index_file, workers)
        killed_at = time.monotonic()
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        progress(share, f"worker {victim.pid} killed with -9", end="\n")
        watch(index_file, len(jobs), [worker for worker in workers if worker is not victim], until=1.0)
        seconds = time.monotonic() - begun
        results, dead = collect(jobs, paths)
        by_id = {job.id: path for job, path in zip(jobs, paths, strict=True)}
        return Run(results, dead, by_id, seconds, victim.pid, killed_at, share, log.read_text())
    finally:
        stop(workers)


def start_worker(output: object) -> subprocess.Popen[bytes]:
    """Start ``boost worker`` on the task file, as anybody would in a shell."""
    command = [sys.executable, "-m", "boost_core.cli", "worker", str(HERE / "tasks.py")]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # type: ignore[call-overload,no-any-return]


def stopped_at_work(task: Task[..., Any], workers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Return a worker that is stopped in the middle of jobs, or any if there are none left.

    Between two jobs it would hold nothing that others could take over.
    """
    from ledger import Ledger

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            depth = task.depth()
            at_work = Ledger.read(Path(os.environ["STDLIB_INDEX_LEDGER"])).unfinished_by(worker.pid)
            if at_work or not depth.ready + depth.running:
                return worker
            worker.send_signal(signal.SIGCONT)
    raise SystemExit("the jobs take too long")


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """Let all workers drain and end."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGCONT)  # an interrupt may have come while it was stopped
    for worker in workers:
        try:
            worker.wait(timeout=40)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def watch(task: Task[..., Any], total: int, workers: list[subprocess.Popen[bytes]], until: float) -> float:
    """Show the progress until a share of the jobs is done; return the share."""
    deadline = time.monotonic() + PATIENCE
    while True:
        depth = task.depth()
        share = 1 - (depth.ready + depth.delayed + depth.running) / total
        progress(share, f"{depth.running} running, {depth.dead} dead letters")
        if share >= until:
            progress(share, end="\n" if until >= 1 else "")
            return share
        ended = [worker for worker in workers if worker.poll() is not None]
        if ended or time.monotonic() > deadline:
            message = f"worker {ended[0].pid} ended with {ended[0].returncode}" if ended else "the jobs take too long"
            raise SystemExit(message)
        time.sleep(0.05)


def progress(share: float, text: str = "", end: str = "") -> None:
    """Draw a progress bar on a terminal; elsewhere say only what ends a line."""
    if sys.stdout.isatty():
        bar = "#" * int(share * 40)
        print(f"\r[{bar:<40}] {share:4.0%}  {text:<44}", end=end, flush=True)
    elif end:
        print(f"{share:4.0%} done  {text}".rstrip(), flush=True)


def collect(jobs: list[Job[Any]], paths: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return each file's result, or why it is a dead letter; a file that is lost is in neither."""
    from boost_core.errors import JobFailed, ResultTimeout

    results: dict[str, dict[str, Any]] = {}
    dead: dict[str, str] = {}
    for job, path in zip(jobs, paths, strict=True):
        try:
            results[path] = job.get(timeout=RESULT_SECONDS)  # all have ended: what is there is there at once
        except JobFailed as failed:
            dead[path] = failed.reason
        except ResultTimeout:
            continue
    return results, dead


def sequential(root: Path, paths: list[str]) -> tuple[dict[str, dict[str, Any]], set[str], float]:
    """Index all files in one plain loop, without boost."""
    from tasks import index_source

    started, results, unparsable = time.monotonic(), dict[str, dict[str, Any]](), set[str]()
    for path in paths:
        try:
            results[path] = dict(index_source(str(root), path))
        except (SyntaxError, ValueError):
            unparsable.add(path)
    return results, unparsable, time.monotonic() - started


def report(run: Run, expected: dict[str, dict[str, Any]], unparsable: set[str], seconds: float, notes: Path) -> int:
    """Print what was found and whether it is complete; return the exit code."""
    from ledger import Ledger

    ledger = Ledger.read(notes)
    print_library(run)
    print_dead(run)
    print_missing(run)
    print_killed(run, ledger)
    total = len(run.results) + len(run.dead)
    print(f"\n{total} jobs in {run.seconds:.1f} s: {total / run.seconds:.0f} jobs/s; one plain loop: {seconds:.1f} s")
    return verdict(run, expected, unparsable, ledger)


def print_library(run: Run) -> None:
    """Print totals and the largest modules."""
    results = run.results.values()
    totals = {name: sum(result[name] for result in results) for name in ("lines", "classes", "functions")}
    imports = Counter(name.partition(".")[0] for result in results for name in result["imports"])
    print("\nTotals: " + ", ".join(f"{value:,} {name}" for name, value in totals.items()))
    print("Most imported: " + ", ".join(f"{name} ({count})" for name, count in imports.most_common(5)))
    print("Largest modules:")
    for result in sorted(results, key=lambda result: -result["lines"])[:5]:
        longest = result["longest"]
        text = f"longest function {longest['name']} ({longest['lines']} lines)" if longest else "no function"
        print(f"  {result['lines']:7,} lines  {result['path']:<40} {text}")


def print_dead(run: Run) -> None:
    """List the dead letters with their reasons."""
    print(f"Dead letters ({len(run.dead)}):")
    for path, reason in sorted(run.dead.items()):
        print(f"  {path}: {reason}")


def print_missing(run: Run) -> None:
    """List what was lost, if anything."""
    if run.missing:
        print(f"Missing ({len(run.missing)}):")
        for path in sorted(run.missing):
            print(f"  {path}")


def print_killed(run: Run, ledger: Ledger) -> None:
    """Say what the killed worker held and how fast it was taken over."""
    held = sorted(run.jobs[job] for job in ledger.unfinished_by(run.killed_pid))
    waits = ledger.taken_over_after(run.killed_pid, run.killed_at)
    print(
        f"Worker {run.killed_pid} was killed with -9 at {run.killed_at_share:.0%}, in the middle of {len(held)} jobs:"
    )
    for path in held:
        print(f"  {path}")
    if waits:
        print(f"  taken over by others after {waits[0]:.2f} to {waits[-1]:.2f} s")


def verdict(run: Run, expected: dict[str, dict[str, Any]], unparsable: set[str], ledger: Ledger) -> int:
    """Compare with the plain run and say so; return 0 only if everything is as it must be."""
    twice = ledger.run_twice()
    running = twice & ledger.unfinished_by(run.killed_pid)
    unsettled = twice & ledger.just_ended_by(run.killed_pid) - running
    checks = {
        "every result is identical to the plain run's": run.results == expected,
        "nothing is missing": set(run.results) | set(run.dead) == set(run.jobs.values()),
        "the dead letters are the files that don't parse": set(run.dead) == unparsable,
        "nothing ran twice beyond what the dead worker held": twice == running | unsettled,
    }
    of_these = f"the dead worker was in {len(running)}, had just ended {len(unsettled)}"
    print(f"\nCheck ({len(twice)} jobs ran twice; {of_these}):")
    for text, holds in checks.items():
        print(f"  {'ok  ' if holds else 'FAIL'}  {text}")
    if not all(checks.values()):
        print(run.worker_log)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped before the end; nothing is left behind", file=sys.stderr)
        sys.exit(INTERRUPTED)
