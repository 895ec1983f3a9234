"""The nouns that every part of boost shares: envelope, frame, delivery, run, outcome."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import attrs
import msgspec

ENVELOPE_VERSION: Final = 1
"""Version of the envelope that this code writes; a higher one on a queue is refused unread."""

MICROSECONDS: Final = 1_000_000


def new_id() -> str:
    """Return a fresh job id: 32 hexadecimal digits from the operating system's random source, read in blocks."""
    try:
        return _FRESH_IDS.pop()
    except IndexError:
        digits = os.urandom(16 * _ID_BLOCK).hex()
        _FRESH_IDS.extend(digits[start : start + 32] for start in range(32, 32 * _ID_BLOCK, 32))
        return digits[:32]


_ID_BLOCK: Final = 128
_FRESH_IDS: Final[list[str]] = []
os.register_at_fork(after_in_child=_FRESH_IDS.clear)  # or parent and child would use the same ones


class Clock(Protocol):
    """Where core and plugins read the time, so that tests can move it."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""

    def time(self) -> float:
        """Return seconds since the epoch."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Failure(msgspec.Struct, kw_only=True, frozen=True):
    """One failed attempt, as it travels in the envelope: which, when (epoch µs), and the error."""

    attempt: int
    at: int
    type: str
    message: str


class Message(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The envelope, the same on every broker. Times are integer microseconds since the epoch.

    ``args`` and ``kwargs`` stay encoded until the pool's world decodes them against the
    function's signature. ``attempt`` counts from 1 and goes up only for counted retries;
    ``requeue`` counts uncounted ones, ``parked`` the waits of an unknown task.
    """

    v: int
    id: str
    task: str
    at: int
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    attempt: int = 1
    requeue: int = 0
    parked: int = 0
    priority: int = 0
    not_before: int | None = None
    expires_at: int | None = None
    root: str | None = None
    parent: str | None = None
    trace: dict[str, str] | None = None
    options: dict[str, Any] | None = None
    failures: tuple[Failure, ...] = ()


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What stands on ``<queue>.dead``: why a message ended there, and its original bytes.

    ``cut`` bytes are missing at the end of them, where the broker takes no larger message.
    """

    v: int
    id: str
    queue: str
    at: int
    reason: str
    task: str | None = None
    attempt: int = 0
    error: str | None = None
    traceback: str | None = None
    failures: tuple[Failure, ...] = ()
    cut: int = 0
    body: bytes = b""


class Frame(msgspec.Struct, eq=False, gc=False):
    """What a broker carries. Brokers never see tasks or arguments.

    ``delay`` and ``ttl`` are seconds from now; a higher ``priority`` goes first; ``dedup_id``
    differs between attempts, so that a broker's own duplicate window never swallows a retry.
    """

    id: str
    queue: str
    body: bytes
    priority: int = 0
    delay: float = 0.0
    ttl: float | None = None
    key: str | None = None
    dedup_id: str | None = None


@attrs.define(eq=False)
class Delivery:
    """One hand-over of a frame by a broker.

    ``receipt`` is the broker's own and opaque to core; ``deaths`` counts claims of this message
    by an owner that died. ``held_since`` (monotonic) is core's: the last fetch or extension.
    """

    queue: str
    body: bytes | memoryview
    receipt: Any
    deaths: int = 0
    held_since: float = 0.0


class QueueKind(enum.Enum):
    """What a queue is for: ``WORK`` is consumed, ``DELAY`` and ``DEAD`` are companions."""

    WORK = "work"
    DELAY = "delay"
    DEAD = "dead"


@attrs.frozen(kw_only=True)
class QueueSpec:
    """A destination as core declares it.

    ``longest_timeout`` (seconds, None: unbounded) is of the tasks on it. ``origin`` is the file that
    declares the queue's task when neither name nor queue was given: a broker that keeps facts of
    its queues records it, and refuses another one, so that two scripts with a ``run`` each don't
    take each other's jobs.
    """

    name: str
    kind: QueueKind = QueueKind.WORK
    priorities: int = 1
    ordered: bool = False
    longest_timeout: float | None = None
    origin: str | None = None


@attrs.frozen(kw_only=True)
class Depth:
    """How many messages a queue has, by state. ``dead`` is the depth of its dead letters."""

    ready: int = 0
    delayed: int = 0
    running: int = 0
    dead: int = 0


# --- outcomes -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Done:
    """The function returned ``value``."""

    value: Any = None


@attrs.define(eq=False)
class Failed:
    """The function raised ``error``; ``final`` means that no retry may follow."""

    error: BaseException
    final: bool = False


@attrs.define(eq=False)
class TimedOut:
    """The run was over its deadline (``timeout`` seconds) and was given up on."""

    timeout: float


@attrs.define(eq=False)
class Cancelled:
    """The run was cancelled from outside."""

    reason: str = "cancelled"


@attrs.define(eq=False)
class Killed:
    """The process that ran it was killed on purpose."""

    reason: str = "killed"


@attrs.define(eq=False)
class WorkerLost:
    """Workers died while they ran it, ``deaths`` times."""

    deaths: int


class Steer(Exception):
    """Base of what a task raises to say what happens to its message next."""


@attrs.define(eq=False)
class Retry(Steer):
    """Raise it to run the job again after ``delay`` seconds, counted as an attempt.

    Without a delay the task's own ``retry_delay`` holds.
    """

    delay: float | None = None


@attrs.define(eq=False)
class Requeue(Steer):
    """Raise it to put the job back for ``delay`` seconds, not counted as an attempt."""

    delay: float = 0.0


@attrs.define(eq=False)
class Reject(Steer):
    """Raise it to end the job as a dead letter, without retries, for ``reason``."""

    reason: str = "rejected"


@attrs.define(eq=False)
class Drop(Steer):
    """Raise it to end the job without a trace beyond its result; ``reason`` is what a waiter sees."""

    reason: str = "dropped"


@attrs.define(eq=False)
class RateLimited(Steer):
    """Raise it when a remote limit was hit: an uncounted ``Requeue`` after ``retry_after`` seconds."""

    retry_after: float


@attrs.define(eq=False)
class Split:
    """The outcomes of a batch run, one a delivery, in order."""

    outcomes: Sequence[Outcome]


Outcome: TypeAlias = (
    Done | Failed | TimedOut | Cancelled | Killed | WorkerLost | Retry | Requeue | Reject | Drop | RateLimited | Split
)
"""How a run ended; exactly one a run."""


OUTCOMES: Final = (
    *(Done, Failed, TimedOut, Cancelled, Killed, WorkerLost),
    *(Retry, Requeue, Reject, Drop, RateLimited, Split),
)
"""The classes of Outcome, for ``isinstance``."""

# --- runs and verdicts ----------------------------------------------------------------------------


@attrs.define(eq=False)
class Run:
    """One execution of a task: its delivery, its envelope, and what became of it.

    ``token`` fences it: a run whose delivery was lost has ``fenced`` set, and neither its outcome
    nor its result counts any more. ``started`` and ``deadline`` are monotonic seconds;
    ``cancel_reason`` is set before a pool is asked to cancel. ``host`` is the pump that carries the
    run, ``handle`` the pool's own.
    """

    task: Any
    message: Message
    delivery: Delivery
    token: int
    clock: Clock
    host: Any = None
    queued: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    deadline: float | None = None
    cancel_reason: Cancelled | TimedOut | None = None
    fenced: bool = False
    settled: bool = False
    handed_over: bool = False
    handle: Any = None
    _ticket: bool = attrs.field(default=True, init=False)

    def claim(self) -> bool:
        """Return True to the one caller that may start this run, or withdraw it; False to all others."""
        try:
            del self._ticket  # atomic: pool, keeper and drain race for it
        except AttributeError:
            return False
        return True

    @property
    def claimed(self) -> bool:
        """True once somebody started or withdrew it."""
        return not hasattr(self, "_ticket")

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.message.attempt

    def setting(self, name: str) -> Any:
        """Return a task option as it holds for this message: its own value if set, else the task's."""
        options = self.message.options
        if options and name in options:
            return options[name]
        return self.task.values[name]


@attrs.define(eq=False)
class Ack:
    """The message is finished with."""


@attrs.define(eq=False)
class Next:
    """The message comes back after ``delay`` seconds; ``counted`` ones are a new attempt."""

    delay: float = 0.0
    counted: bool = True


@attrs.define(eq=False)
class Dead:
    """The message becomes a dead letter for ``reason``."""

    reason: str


Verdict: TypeAlias = Ack | Next | Dead
"""What becomes of a message after its run; policies set it on the settle side."""


@attrs.define(eq=False)
class Ended:
    """One delivery's end on the settle side: the run, its outcome, and what policies make of it (a Verdict).

    The ``verdict`` is None until it is decided. ``committed``: what must outlive it is stored; ``forwarded``: so is its
    next frame.
    """

    run: Run
    outcome: Outcome
    verdict: Any
    committed: bool = False
    forwarded: bool = False


RunnerCall: TypeAlias = Callable[[Run], Any]
"""What a layer of the compiled runner is: a run in, an Outcome (or an awaitable of one) out."""
