"""From a call to stored frames: encode, check, publish; from sync code and, merged by one thread, from event loops."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from boost_core.app.services import Services, queue_specs
from boost_core.contracts.broker import SyncBroker
from boost_core.contracts.capability import Capability
from boost_core.errors import BodyTooLarge, BrokerUnavailable, ConnectionLost, PublishError
from boost_core.forks import on_fork
from boost_core.native import Empty, Lock, SimpleQueue, Thread
from boost_core.plan.compile import TaskPlan
from boost_core.plan.current import RUNNING
from boost_core.types import ENVELOPE_VERSION, MICROSECONDS, Frame, Message, new_id

if TYPE_CHECKING:
    import asyncio

    from boost_core.app.task import Call

PUBLISH_SECONDS: Final = 10.0
_REPEAT_WAIT: Final = 0.05


@attrs.define(eq=False)
class Outgoing:
    """Frames for one broker."""

    broker: SyncBroker
    frames: list[Frame]


class Publisher:
    """Publishes for one app. ``push`` calls the broker directly; ``apush`` gives to one thread that merges batches."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.after_fork()
        on_fork(self)

    def after_fork(self) -> None:
        """Start without a thread, as a forked child does."""
        self._box: SimpleQueue[tuple[Outgoing, asyncio.AbstractEventLoop, asyncio.Future[None]] | None] = SimpleQueue()
        self._lock = Lock()
        self._thread: Thread | None = None

    # --- frames ------------------------------------------------------------------------------------

    def broker(self, plan: TaskPlan) -> SyncBroker:
        """Return the opened broker of a task, its queues declared."""
        broker = self._services.broker(plan.broker, plan.broker_options)
        self._services.declare(broker, queue_specs(plan.queue, **queue_facts(plan)))
        return broker

    def frames(self, plan: TaskPlan, calls: Sequence[Call[Any]]) -> list[Frame]:
        """Return the frames of calls of one task. Raises for the first that can't be carried."""
        now = int(self._services.clock.time() * MICROSECONDS)
        parent = RUNNING.get(None)
        frames = []
        for call in calls:
            message = _message(plan, call, now)
            if parent is not None:
                message.root, message.parent = parent.message.root or parent.message.id, parent.message.id
            body = plan.prefix + plan.codec.encode_message(message)
            if len(body) > plan.largest:
                raise BodyTooLarge(plan.name, len(body), plan.broker.name, plan.largest)
            frame = Frame(message.id, plan.queue, body, message.priority)
            if message.not_before is not None:
                frame.delay = (message.not_before - now) / MICROSECONDS
            if message.expires_at is not None:
                frame.ttl = _ttl(plan, message, now)
            if plan.deduplicates:
                frame.dedup_id = f"{message.id}:1:0"
            frames.append(frame)
        return frames

    # --- publishing --------------------------------------------------------------------------------

    def publish(self, broker: SyncBroker, frames: Sequence[Frame]) -> None:
        """Return once all frames are stored. Raises ``PublishError`` or ``BrokerUnavailable``."""
        publish_until(broker, frames, time.monotonic() + PUBLISH_SECONDS)

    async def apublish(self, broker: SyncBroker, frames: list[Frame]) -> None:
        """Publish from a running event loop without blocking it."""
        import asyncio

        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._box.put((Outgoing(broker, frames), loop, stored))
        self._ensure_thread()
        await stored

    def _ensure_thread(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = Thread(self._serve, name="boost-publish")
                    self._thread.start()

    def close(self) -> None:
        """Let the publisher thread end once everything handed over is published."""
        thread = self._thread
        if thread is not None:
            self._box.put(None)
            thread.join(PUBLISH_SECONDS)

    def _serve(self) -> None:
        going = True
        while going:
            waiting = [self._box.get()]
            try:
                while True:
                    waiting.append(self._box.get_nowait())
            except Empty:
                pass
            going = None not in waiting
            self._publish_merged([item for item in waiting if item is not None])
        self._thread = None
        if not self._box.empty():  # handed over while this thread was on its way out
            self._ensure_thread()

    def _publish_merged(self, waiting: Sequence[tuple[Outgoing, Any, Any]]) -> None:
        """Publish everything that waits, one batch a broker, and tell each caller of its own frames."""
        by_broker: dict[SyncBroker, list[tuple[Outgoing, Any, Any]]] = defaultdict(list)
        for item in waiting:
            by_broker[item[0].broker].append(item)
        for broker, items in by_broker.items():
            frames = [frame for outgoing, _, _ in items for frame in outgoing.frames]
            error: BaseException | None = None
            try:
                self.publish(broker, frames)
            except Exception as caught:
                error = caught
            start = 0
            for outgoing, loop, stored in items:
                end = start + len(outgoing.frames)
                _tell(loop, stored, _own_part(error, start, end))
                start = end


_IN_ENVELOPE: Final = frozenset({"priority", "delay"})


def _message(plan: TaskPlan, call: Call[Any], now: int) -> Message:
    """Return the envelope of one call, stamped by the controls; ``now`` in microseconds."""
    own = call.own
    values = {**plan.values, **own} if own else plan.values
    args, kwargs = plan.binder.encode(call.args, call.kwargs)
    message = Message(
        v=ENVELOPE_VERSION,
        id=call.job_id or new_id(),
        task=plan.name,
        at=now,
        args=msgspec.Raw(args),
        kwargs=msgspec.Raw(kwargs),
        priority=values["priority"],
    )
    if own:
        message.options = {name: value for name, value in own.items() if name not in _IN_ENVELOPE}
    if values["delay"]:
        message.not_before = now + int(values["delay"] * MICROSECONDS)
    for stamp in plan.stampers:
        stamp(message, values)
    return message


def queue_facts(plan: TaskPlan) -> dict[str, Any]:
    """Return what a queue's declaration says of a task on it."""
    return {
        "priorities": plan.broker.limits.priorities if Capability.PRIORITY in plan.broker.capabilities else 1,
        "longest_timeout": plan.values.get("timeout"),
        "origin": plan.origin,
    }


def _ttl(plan: TaskPlan, message: Message, now: int) -> float | None:
    """Return how long the broker needs to keep a message that expires; results must see it expire."""
    if message.expires_at is None or Capability.TTL not in plan.broker.capabilities:
        return None
    if (message.options or plan.values).get("results", plan.values.get("results")):
        return None
    return (message.expires_at - now) / MICROSECONDS


def publish_until(broker: SyncBroker, frames: Sequence[Frame], deadline: float) -> None:
    """Publish, repeating what surely failed until ``deadline`` (monotonic); what is unsure, only if it can't double."""
    most = broker.spec.limits.max_batch
    for start in range(0, len(frames), most):
        end = min(start + most, len(frames))
        batch = frames if end - start == len(frames) else frames[start:end]
        try:
            _publish_batch(broker, batch, deadline)
        except PublishError as error:
            failed = [*(start + index for index in error.failed), *range(end, len(frames))]
            unsure = [start + index for index in error.unsure]
            raise PublishError(error.broker, error.problem, failed, unsure) from error
        except BrokerUnavailable as error:
            if start == 0:
                raise
            raise not_stored(error, range(start, len(frames))) from error


def _publish_batch(broker: SyncBroker, frames: Sequence[Frame], deadline: float) -> None:
    indexes: Sequence[int] = range(len(frames))
    waiting = frames
    unsure: Sequence[int] = ()
    while True:
        try:
            _attempt(broker, waiting, max(deadline - time.monotonic(), 0.001))
        except PublishError as error:
            failed, unsure = _by_place(error, indexes, unsure)
            repeatable = not unsure or Capability.DEDUP in broker.spec.capabilities
            if not repeatable or time.monotonic() + _REPEAT_WAIT >= deadline:
                raise PublishError(error.broker, error.problem, failed, unsure) from error
            indexes = sorted([*failed, *unsure])
            waiting = [frames[index] for index in indexes]
            threading.Event().wait(_REPEAT_WAIT)
        except BrokerUnavailable as error:
            if waiting is frames:  # nothing was published before: it is away
                raise
            failed, unsure = _by_place(not_stored(error, range(len(indexes))), indexes, unsure)
            raise PublishError(error.broker, error.problem, failed, unsure) from error
        else:
            return


def _attempt(broker: SyncBroker, frames: Sequence[Frame], timeout: float) -> None:
    try:
        broker.publish(frames, timeout)
    except ConnectionLost as error:  # while they were under way
        raise PublishError(error.broker, error.problem, unsure=range(len(frames))) from error


def _by_place(error: PublishError, indexes: Sequence[int], unsure_before: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the places of what failed and of what is unsure, where attempt after attempt was made of ``indexes``.

    What an earlier attempt may have stored stays unsure, however surely this one failed.
    """
    unsure = {*(indexes[number] for number in error.unsure), *unsure_before}
    left = sorted(indexes[number] for number in (*error.failed, *error.unsure))
    return [place for place in left if place not in unsure], [place for place in left if place in unsure]


def not_stored(error: BrokerUnavailable, indexes: Sequence[int]) -> PublishError:
    """Return the error for a batch that is stored but for ``indexes``, for which the broker was away."""
    return PublishError(error.broker, error.problem, [*indexes])


def _own_part(error: BaseException | None, start: int, end: int) -> BaseException | None:
    """Return what a merged batch's error means for the frames from ``start`` to ``end``."""
    if not isinstance(error, PublishError):
        return error
    failed = [index - start for index in error.failed if start <= index < end]
    unsure = [index - start for index in error.unsure if start <= index < end]
    return PublishError(error.broker, error.problem, failed, unsure) if failed or unsure else None


def _tell(loop: Any, stored: Any, error: BaseException | None) -> None:
    def finish() -> None:
        if stored.done():
            return
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(finish)
