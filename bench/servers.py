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

from bench.measure import Figure, at_least, bound, seconds
from bench.processes import Place, place, until
from bench.raw import RAW
from bench.raw.rival import Raw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from launcher import Kafka, Proxy, install, start
from with_broker import SERVERS, address

BATCHED, SINGLES, PAIRS = 5000, 300, 7
COUNTS = {"nats": 1000, "kafka": 50_000}
"""How many in batches where each message waits for the disk, and where acks are committed ten times a second."""
STORED = "stored by the server before the call returns"
KILLS = 30
RESTARTS = 3
QUEUES = 20
IDLE_SECONDS = 10.0
TAKEOVER = {"redis": 13.0, "redis-stream": 13.0, "rabbitmq": 1.0, "kafka": 15.0, "nats": 20.0}
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


def speed(broker: str, server: Any) -> Iterator[Figure]:
    """Compare with the plain client."""
    ours, raw = Ours(os.environ["BOOST_BROKER"]), RAW[broker](server.url)
    count, single = COUNTS.get(broker, BATCHED), SINGLE.get(broker, 0.7)
    try:
        yield _batches(f"{broker} push_many / confirmed batches of 100", ours, raw, raw.publish_batches, count, 0.5)
        for name, publish in raw.quicker_publishing().items():
            yield _batches(f"{broker} push_many / {name}", ours, raw, publish, count)
        values = _ratios(ours.publish_singles, raw.publish_singles, SINGLES, ours, raw)
        yield at_least(f"{broker} push / one confirmed publish", values, single, STORED)
        yield _draining(f"{broker} drain / take and ack batches of 100", ours, raw, raw.drain, count, 0.3)
        for name, drain in raw.quicker_draining().items():
            yield _draining(f"{broker} drain / {name}", ours, raw, drain, count)
    finally:
        ours.close()
        raw.close()


class Ours:
    """The same through boost."""

    def __init__(self, url: str) -> None:
        self.app = App("bench", broker=url, store="memory")
        # With a time-out, as RabbitMQ wants to know that no job takes longer than it allows.
        self.task: Any = self.app.boost("noop", concurrency=8, timeout=60)(_noop)
        self.task.push(0)
        self._seen_elsewhere: Any = App("bench", broker=url, store="memory").boost("noop")(_noop)

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
        """Run what waits; return the seconds from the first finished job until another process sees all acks."""
        worker = self.app.worker()
        with worker:
            until(lambda: worker.counts["done"] > 0, "the first job")
            begun = time.perf_counter()
            already: int = worker.counts["done"]
            until(lambda: worker.counts["done"] >= count, "all jobs")
            until(lambda: self._seen_elsewhere.wait_idle(0), "the last ack")
            return (time.perf_counter() - begun) * count / (count - already)

    def close(self) -> None:
        """Hang up."""
        self.app.close()
        self._seen_elsewhere.app.close()


def _noop(number: int) -> None: ...


def _batches(
    name: str, ours: Ours, raw: Raw, publish: Callable[[int], None], count: int, goal: float | None = None
) -> Figure:
    return at_least(name, _ratios(ours.publish_batches, publish, count, ours, raw), goal, STORED)


def _ratios(
    mine: Callable[[int], None], theirs: Callable[[int], None], count: int, ours: Ours, raw: Raw
) -> list[float]:
    values = []
    for _ in range(PAIRS):
        values.append(seconds(lambda: theirs(count)) / seconds(lambda: mine(count)))
        raw.drain(count)
    ours.task.clear()
    return values


def _draining(
    name: str, ours: Ours, raw: Raw, drain: Callable[[int], None], count: int, goal: float | None = None
) -> Figure:
    values = []
    for _ in range(PAIRS):
        ours.publish_batches(count)
        raw.publish_batches(count)
        mine = ours.drain(count)
        values.append(seconds(lambda: drain(count)) / mine)
    return at_least(name, values, goal, "ack after the run, 8 threads; until others see all acks")


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
        its.await_notes(number, "a job after the restart")
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
    """Watch a worker that serves twenty empty queues, through a proxy that counts."""
    with Proxy(server.port) as proxy, place() as its:
        if isinstance(server, Kafka):  # it sends clients to the address that it knows itself by
            server.stop()
            server.advertised = proxy.port
            server.start()
        os.environ["BOOST_BROKER"] = os.environ["BOOST_BROKER"].replace(f":{server.port}", f":{proxy.port}")
        yield from _idle(broker, proxy, its)


def _idle(broker: str, proxy: Proxy, its: Place) -> Iterator[Figure]:
    from bench.latency import idle

    (its.folder / "many.py").write_text(
        "from boost_core import boost\n"
        + "".join(f"@boost('idle{number}')\ndef idle{number}(): ...\n" for number in range(QUEUES))
    )
    worker = its.worker(its.folder / "many.py")
    time.sleep(4.0)  # it has settled by then
    before = proxy.round_trips
    cpu, _ = idle(worker.pid, IDLE_SECONDS)
    trips = (proxy.round_trips - before) / IDLE_SECONDS
    connections = proxy.connections
    note = f"{QUEUES} queues, over {IDLE_SECONDS:g} s"
    yield bound(f"{broker} idle worker, share of a core", [cpu], cpu, "%", 1.0, note)
    yield bound(f"{broker} idle worker, round trips", [trips], trips, "/s", 5.0, note)
    yield bound(f"{broker} idle worker, connections", [connections], connections, "", 4.0, note)


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
