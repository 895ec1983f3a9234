"""The brokers: queues on one Redis or Valkey server."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

from boost_core.plugin import (
    BrokerUnavailable,
    Capability,
    Closed,
    Depth,
    Frame,
    Lost,
    PublishError,
    QueueSpec,
    SyncBroker,
    new_id,
)
from redis import exceptions

from boost_broker_redis.address import Address, Broken
from boost_broker_redis.connections import Connections
from boost_broker_redis.keys import registry, stem
from boost_broker_redis.plugin import RedisOptions
from boost_broker_redis.record import body_of, bounded, id_of, milliseconds, priority_of, publishing
from boost_broker_redis.script import Call
from boost_broker_redis.server import PROBE, Server
from boost_broker_redis.subscription import Home, RedisSubscription
from boost_broker_redis.troubles import Unfit, explain

log = logging.getLogger("boost.broker.redis")

_PAGE: Final = 100
_Part = tuple[str, Sequence[int]]


def _probes() -> Sequence[Frame]:
    """Return frames that ask for everything that any frame may."""
    return [Frame("probe", "", b"", dedup_id=new_id()), Frame("probe", "", b"", delay=1.0, ttl=1.0)]


class RedisBroker(SyncBroker):
    """Queues as sorted sets. All threads publish at once, each on a connection of its own."""

    options: RedisOptions
    LAYOUT: ClassVar[str] = "queue"
    PREFIX: ClassVar[str] = "boost"

    def __init__(self, options: RedisOptions) -> None:
        super().__init__(options)
        self.address = Address(options.url.reveal() if options.url else None)
        self._connections = Connections(self.address, self.LAYOUT, options.timeout, self._look_at)
        self._window = milliseconds(options.duplicate_window)
        self._subscriptions: list[RedisSubscription] = []
        self._open = False

    def where(self) -> str:
        """Return the server's URL, its password masked."""
        return self.address.masked

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and check the server. Raises ``BrokerUnavailable`` with the remedy."""
        if self._open:
            return
        server = self.probe()
        try:
            server.insist(self.spec.name, self.options.durability)
        except Unfit as error:
            self._connections.close()
            raise self._unavailable(error) from error
        for finding in server.doubtful():
            log.warning("the server at %s %s. %s", self.where(), finding.text, finding.remedy)
        self._open = True

    def probe(self) -> Server:
        """Ask the server about itself. Raises ``BrokerUnavailable``."""
        replies = self._asked(PROBE)
        try:
            return Server.of(replies)
        except exceptions.RedisError as error:
            raise self._unavailable(error) from error

    def _look_at(self, replies: Sequence[Any]) -> None:
        Server.of(replies).insist(self.spec.name, self.options.durability)

    def close(self) -> None:
        """Disconnect; idempotent."""
        self._open = False
        self._connections.close()

    def after_fork(self) -> None:
        """In a forked child: close the parent's sockets, so that they end with it."""
        self._open = False
        for subscription in self._subscriptions:
            subscription.after_fork()
        self._connections.after_fork()

    # --- queues ----------------------------------------------------------------------------------

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues known, and see that this user may use them."""
        self._check_open()
        names = [queue.name for queue in queues]
        self._register(names)
        self.prove(names)

    def prove(self, names: Sequence[str]) -> None:
        """See that this user can store on queues, and that nothing is in the way. Raises ``BrokerUnavailable``."""
        calls = self._calls("declare", names, *publishing(_probes(), self._window))
        for name, answer in zip(names, self._ran(calls), strict=True):
            self._insist(answer, f"queue {name!r}")

    def _register(self, names: Sequence[str]) -> None:
        """Add names to the list of queues; only new ones, so that a full server doesn't keep workers from starting."""
        known = self._named("SMISMEMBER", *names) if names else []
        new = [name for name, is_known in zip(names, known, strict=True) if not is_known]
        if new:
            self._named("SADD", *new)

    def _named(self, command: str, *names: str) -> Any:
        key = registry(self.PREFIX)
        return self._insist(self._asked([(command, key, *names)])[0], f"the key {key}")

    def _calls(self, operation: str, queues: Iterable[str], *arguments: Any) -> list[Call]:
        return [Call(operation, [self.stem(queue)], arguments) for queue in queues]

    def stem(self, queue: str) -> str:
        """Return what the keys of a queue begin with."""
        return stem(self.PREFIX, queue)

    # --- publishing and fetching --------------------------------------------------------------------

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames, in one round trip. Raises ``PublishError``; frames over the limits fail alone."""
        self._check_open()
        misfits = self.misfits(frames)
        parts = list(self._parts(frames, misfits))
        calls = [
            Call("publish", [self.stem(queue)], publishing([frames[i] for i in part], self._window))
            for queue, part in parts
        ]
        try:
            replies: Sequence[Any] = self._connections.run(calls, timeout) if calls else ()
        except Broken as error:
            replies = [*error.replies, *itertools.repeat(error, len(calls) - len(error.replies))]
        if misfits or any(isinstance(reply, Exception) for reply in replies):
            self._raise_for(parts, replies, misfits, timeout)

    def _raise_for(
        self, parts: Sequence[_Part], replies: Sequence[Any], misfits: Mapping[int, str], timeout: float
    ) -> NoReturn:
        problem, failed = next(iter(misfits.values()), ""), list(misfits)
        unsure: list[int] = []
        for (queue, part), reply in zip(parts, replies, strict=True):
            if isinstance(reply, Broken):
                problem = self._told(reply.cause, timeout)
                (unsure if reply.unsure else failed).extend(part)
            elif isinstance(reply, exceptions.RedisError):
                problem = f"queue {queue!r}: {self._told(reply, timeout)}"
                failed += part
        raise PublishError(self.spec.name, problem, failed=sorted(failed), unsure=sorted(unsure))

    def _parts(self, frames: Sequence[Frame], misfits: Mapping[int, str]) -> Iterator[_Part]:
        """Yield the numbers of the frames that go to a queue together, bounded in number and bytes."""
        if len(frames) == 1 and not misfits:
            yield frames[0].queue, (0,)
            return
        lines: dict[str, list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            if i not in misfits:
                lines[frame.queue].append(i)
        for queue, numbers in lines.items():
            for start, end in bounded([len(frames[i].body) for i in numbers]):
                yield queue, numbers[start:end]

    def misfits(self, frames: Sequence[Frame]) -> dict[int, str]:
        """Return which frames can't be stored, and why. Raises ``UnsupportedCapability`` before anything is stored."""
        limits, capabilities = self.spec.limits, self.spec.capabilities
        found: dict[int, str] = {}
        for i, frame in enumerate(frames):
            if frame.key is not None:
                raise self.refuse("key_ordered", f"key={frame.key!r}")
            if frame.priority and Capability.PRIORITY not in capabilities:
                raise self.refuse("priority", f"priority={frame.priority}")
            if frame.ttl is not None and Capability.TTL not in capabilities:
                raise self.refuse("ttl", f"ttl={frame.ttl:g}")
            if len(frame.body) > limits.max_body:
                found[i] = f"a body of {len(frame.body):,} bytes is over the {limits.max_body:,} that it takes"
            elif not 0 <= frame.priority < limits.priorities:
                found[i] = f"priority {frame.priority} is outside 0 to {limits.priorities - 1}"
        return found

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> RedisSubscription:
        """Return a subscription, a worker of its own on the server."""
        self._check_open()
        home = Home(
            name=self.spec.name,
            address=self.address,
            layout=self.LAYOUT,
            stem=self.stem,
            misfits=self.misfits,
            look_at=self._look_at,
            close_idle=self._connections.close_idle,
            lease=self.options.lease,
            timeout=self.options.timeout,
        )
        subscription = RedisSubscription(home, [queue.name for queue in queues], credit)
        self._subscriptions = [one for one in self._subscriptions if not one.closed]
        self._subscriptions.append(subscription)
        return subscription

    # --- inspection --------------------------------------------------------------------------------

    def depth(self, queue: str) -> Depth:
        """Return how many messages a queue has; a queue never heard of has none."""
        ready, delayed, running = self._run("depth", queue)
        return Depth(ready=ready, delayed=delayed, running=running)

    def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return up to ``n`` messages that can be fetched now, next first."""
        frames: list[Frame] = []
        page = b""
        while len(frames) < n:
            page, places, records, left = self._run("peek", queue, page, min(_PAGE, n - len(frames)))
            if not places:
                break
            frames += [
                Frame(id_of(record), queue, body_of(record), priority_of(place), ttl=None if ms < 0 else ms / 1000)
                for place, record, ms in zip(places, records, left, strict=True)
                if record is not None
            ]
        return frames

    def queues(self) -> Sequence[str]:
        """Return the names of all queues that were ever declared, sorted."""
        self._check_open()
        return sorted(name.decode() for name in self._named("SMEMBERS"))

    def purge(self, queue: str) -> int:
        """Remove what waits and what is delayed; messages published meanwhile may go too. Return how many."""
        removed = 0
        while chunk := self._run("purge", queue, self._window):
            removed += chunk
        return removed

    # --- calls -----------------------------------------------------------------------------------

    def _run(self, operation: str, queue: str, *arguments: Any) -> Any:
        self._check_open()
        return self._insist(self._ran(self._calls(operation, [queue], *arguments))[0], f"queue {queue!r}")

    def _ran(self, calls: Sequence[Call]) -> list[Any]:
        try:
            return self._connections.run(calls)
        except Broken as error:
            raise self._unavailable(error.cause) from error

    def _asked(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        try:
            return self._connections.call(commands)
        except Broken as error:
            raise self._unavailable(error.cause) from error

    def _insist(self, reply: Any, what: str) -> Any:
        if isinstance(reply, exceptions.RedisError):
            raise self._unavailable(reply, f" ({what})")
        return reply

    def _unavailable(self, error: Exception, what: str = "") -> BrokerUnavailable:
        problem, fix = explain(error, self.options.timeout)
        return BrokerUnavailable(self.spec.name, f"the server at {self.where()} {problem}{what}", fix)

    def _told(self, error: Exception, timeout: float) -> str:
        return f"the server at {self.where()} {explain(error, timeout)[0]}"

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"broker {self.spec.name!r}")


class RedisStreamBroker(RedisBroker):
    """Queues as streams with a consumer group."""

    LAYOUT: ClassVar[str] = "stream"
    PREFIX: ClassVar[str] = "boost-stream"
