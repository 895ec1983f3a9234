"""A broker with a server beside its plain client, and what its promises cost: take-over, restart, an idle worker."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from boost_core import App

from bench.measure import Figure, at_least, bound
from bench.processes import Place, place, until
from bench.raw import RAW, Raw, timed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from launcher import Proxy, install, start
from with_broker import SERVERS, address

BATCHED, SINGLES, PAIRS = 5000, 300, 7
SLOW = {"nats": 1000}
"""How many where each message waits for the disk."""
KILLS = 30
RESTARTS = 3
QUEUES = 20
IDLE_SECONDS = 10.0
TAKEOVER = {"redis": 13.0, "redis-stream": 15.0, "rabbitmq": 1.0, "kafka": 15.0, "nats": 20.0}
SINGLE = {"nats": 0.6}


def measure(broker: str, group: str) -> int:
    """Print one group's figures of a broker; return how many miss their goal."""
    install(SERVERS[broker])
    with tempfile.TemporaryDirectory(prefix="boost-server-") as folder, start(SERVERS[broker], Path(folder)) as server:
        os.environ["BOOST_BROKER"] = address(broker, server.url)
        missed = 0
        for figure in GROUPS[group](broker, server):
            print(figure, flush=True)
            missed += not figure.holds
        return missed


# --- beside the plain client -----------------------------------------------------------------------------


def speed(broker: str, _server: Any) -> list[Figure]:
    """Return how fast it is beside the plain client."""
    url = os.environ["BOOST_BROKER"]
    ours, raw = Ours(url), RAW[broker](url)
    note = "stored by the server before the call returns"
    try:
        count = SLOW.get(broker, BATCHED)
        bulk = _ratios(ours.publish_batches, raw.publish_batches, count, ours, raw)
        single = _ratios(ours.publish_singles, raw.publish_singles, SINGLES, ours, raw)
        drain = [_drained(ours, raw, count) for _ in range(PAIRS)]
    finally:
        ours.app.close()
        raw.close()
    return [
        at_least(f"{broker} push_many / confirmed batches of 100", bulk, 0.5, note),
        at_least(f"{broker} push / one confirmed publish", single, SINGLE.get(broker, 0.7), note),
        at_least(f"{broker} drain / take and ack batches of 100", drain, 0.3, "ack after the run, 8 threads"),
    ]


class Ours:
    """The same through boost."""

    def __init__(self, url: str) -> None:
        self.app = App("bench", broker=url, store="memory")
        self.task: Any = self.app.boost("noop", concurrency=8)(_noop)
        self.task.push(0)

    def publish_batches(self, count: int) -> None:
        """Push in batches of 100."""
        call = self.task.call
        for first in range(0, count, 100):
            self.task.push_many([call(number) for number in range(first, first + 100)])

    def publish_singles(self, count: int) -> None:
        """Push, each stored before the next."""
        for number in range(count):
            self.task.push(number)

    def drain(self, count: int) -> float:
        """Run what waits; return the seconds from the first finished job to the last ack."""
        worker = self.app.worker()
        with worker:
            until(lambda: worker.counts["done"] > 0, "the first job")
            begun, already = time.perf_counter(), worker.counts["done"]
            until(lambda: worker.counts["done"] >= count, "all jobs")
            return (time.perf_counter() - begun) * count / (count - already)


def _noop(number: int) -> None: ...


def _ratios(mine: Any, theirs: Any, count: int, ours: Ours, raw: Raw) -> list[float]:
    values = []
    for _ in range(PAIRS):
        values.append(timed(theirs, count) / timed(mine, count))
        raw.drain(count)
    ours.task.clear()
    return values


def _drained(ours: Ours, raw: Raw, count: int) -> float:
    ours.task.clear()
    ours.publish_batches(count)
    raw.publish_batches(count)
    mine = ours.drain(count)
    return timed(raw.drain, count) / mine


# --- promises ------------------------------------------------------------------------------------------


def takeover(broker: str, _server: Any) -> list[Figure]:
    """Return how long a killed worker's jobs wait for another one."""
    return [_takeover(broker, TAKEOVER[broker])]


def short_lease(broker: str, _server: Any) -> list[Figure]:
    """Return the same with a lease of two seconds, where that is promised."""
    if broker != "redis":
        return []
    os.environ["BOOST_BROKER_REDIS__LEASE"] = "2s"
    return [_takeover(broker, 4.0, ', lease="2s"')]


def _takeover(broker: str, at_most: float, how: str = "") -> Figure:
    from bench.takeover import RUNNING, kill

    with place() as its:
        kills = [kill(its) for _ in range(KILLS)]
    waits = [wait for wait, _, _ in kills]
    lost, excess = sum(lost for _, lost, _ in kills), sum(excess for _, _, excess in kills)
    note = f"{KILLS} kills -9 with {RUNNING} running jobs each; median {statistics.median(waits):.2f} s; "
    note += f"{lost} lost, {excess} runs beyond the killed ones"
    figure = bound(f"{broker} take-over, worst{how}", waits, max(waits), "s", at_most, note)
    return figure if not lost else Figure(**{**vars(figure), "holds": False})


def restart(broker: str, server: Any) -> list[Figure]:
    """Kill the server under a worker and start it again: how long until the worker has run another job."""
    with place() as its:
        return [_restart(broker, server, its)]


def _restart(broker: str, server: Any, its: Place) -> Figure:
    from bench.jobs import stamp

    its.worker()
    waits = []
    for number in range(RESTARTS):
        server.kill()
        server.start()
        back = time.monotonic()
        _push(stamp)
        until(lambda count=number: len(its.notes()) > count, "a job after the restart")
        waits.append(time.monotonic() - back)
    note = f"{RESTARTS} times killed -9 and started again; from the server's first answer to the job's start"
    return bound(f"{broker} works again after a restart, worst", waits, max(waits), "s", 5.0, note)


def _push(stamp: Any) -> None:
    """Push until the server takes it: the first connection to a restarted server may fail."""
    from boost_core.errors import BrokerUnavailable, PublishError

    end = time.monotonic() + 30
    while True:
        try:
            stamp.push(time.monotonic())
        except (BrokerUnavailable, PublishError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def idleness(broker: str, server: Any) -> Iterator[Figure]:
    """Watch a worker that serves twenty empty queues."""
    with place() as its:
        yield from _idle(broker, server, its)


def _idle(broker: str, server: Any, its: Place) -> Iterator[Figure]:
    from bench.latency import idle

    proxy = Proxy(server.port)
    url = os.environ["BOOST_BROKER"].replace(f":{server.port}", f":{proxy.port}")
    counted = broker != "kafka"  # its server sends clients to the address it knows itself by
    if counted:
        os.environ["BOOST_BROKER"] = url
    (its.folder / "many.py").write_text(
        "from boost_core import boost\n"
        + "".join(f"@boost('idle{number}')\ndef idle{number}(): ...\n" for number in range(QUEUES))
    )
    worker = its.worker(its.folder / "many.py")
    time.sleep(3.0)
    before = proxy.round_trips
    cpu, _ = idle(worker.pid, IDLE_SECONDS)
    trips = (proxy.round_trips - before) / IDLE_SECONDS
    connections = proxy.connections if counted else _connections(worker.pid)
    note = f"{QUEUES} queues, over {IDLE_SECONDS:g} s"
    yield bound(f"{broker} idle worker, share of a core", [cpu], cpu, "%", 1.0, note)
    if counted:
        yield bound(f"{broker} idle worker, round trips", [trips], trips, "/s", 5.0, note)
    yield bound(f"{broker} idle worker, connections", [connections], connections, "", 4.0, note)


def _connections(pid: int) -> int:
    """Return how many TCP connections a process has, over IPv4 or IPv6."""
    sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if os.path.islink(path)}
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    established = "01"
    return sum(
        line.split()[9] in inodes and line.split()[3] == established
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    )


GROUPS: dict[str, Callable[[str, Any], Iterable[Figure]]] = {
    "speed": speed,
    "takeover": takeover,
    "short_lease": short_lease,
    "restart": restart,
    "idle": idleness,
}
"""Each is measured in a process of its own, on a server of its own."""

if __name__ == "__main__":
    sys.exit(min(1, measure(sys.argv[1], sys.argv[2])))
