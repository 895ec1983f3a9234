"""The contract of controls: what a feature may bring to a task's call, admission and outcome."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

import attrs

from boost_core.contracts.capability import Capability
from boost_core.contracts.store import Store
from boost_core.types import Clock, Ended, Message, Outcome, Run, RunnerCall

# --- effects: what a generator control yields ---------------------------------------------------------


@attrs.frozen
class Proceed:
    """Run the inner layer; the yield returns its Outcome."""


@attrs.frozen
class Sleep:
    """Wait ``seconds`` in the run's own world."""

    seconds: float


PROCEED = Proceed()
"""What a generator control yields to run the inner layer."""

Effect: TypeAlias = Proceed | Sleep
"""What a generator control may yield."""

Around: TypeAlias = Generator[Effect, Any, Outcome]
"""What ``Control.around`` returns: a generator that yields effects and returns the run's outcome."""

# --- gates ------------------------------------------------------------------------------------------


@attrs.frozen
class Start:
    """Let it run now."""


@attrs.frozen
class Hold:
    """Keep it here until ``until`` (monotonic); then it passes all gates again."""

    until: float


@attrs.frozen
class Release:
    """Give it back to the broker at once, uncounted."""


@attrs.frozen
class End:
    """Don't run it; its outcome goes through the settle side like any other."""

    outcome: Outcome


START = Start()
"""The admission of a run that may start; one object serves all."""

RELEASE = Release()
"""The admission of a run that goes back to the broker; one object serves all."""

Admission: TypeAlias = Start | Hold | Release | End
"""What a gate answers for one run."""


class Gate:
    """Admission before the pool. Gates never sleep; each admitted or held run gets exactly one ``undo`` or ``settled``.

    ``paces`` is True for gates that give out start times: their queues are not fetched ahead.
    """

    paces: ClassVar[bool] = False

    def demand(self, want: int) -> tuple[int, float | None]:
        """Return how many of ``want`` may come, or 0 and from when on (monotonic). FETCH thread; reserves nothing."""
        return want, None

    def admit(self, runs: Sequence[Run]) -> Sequence[Admission]:
        """Return one admission a run, in order. FETCH thread, once a batch."""
        raise NotImplementedError

    def keep(self, runs: Sequence[Run]) -> None:
        """Renew what is held for these runs. KEEPER thread, every third of the lease."""

    def undo(self, runs: Sequence[Run]) -> None:
        """Forget runs that were admitted or held and never started: refused later, released, lost, cancelled."""

    def settled(self, ended: Sequence[Ended]) -> None:
        """Give keys back, settle claims. SETTLE thread, before the ack."""


# --- policies -----------------------------------------------------------------------------------------


class Policy:
    """What an outcome leads to, wherever it came from. One object may serve many tasks."""

    def decide(self, ended: Ended) -> None:
        """Set ``ended.verdict`` (or leave it). SETTLE thread, per delivery; pure."""

    def commit(self, ended: Sequence[Ended]) -> None:
        """Write what must outlive the ack, for a whole batch. SETTLE thread. ``StoreUnavailable`` puts them aside."""


# --- controls ---------------------------------------------------------------------------------------


class Deadlines(Protocol):
    """Core's watch over running deadlines: at the deadline a pool is asked to cancel, after the grace it abandons."""

    def watch(self, run: Run, seconds: float) -> None:
        """Start the clock of ``run``: it has ``seconds`` from now."""

    def forget(self, run: Run) -> None:
        """Stop watching; the call came back."""


@attrs.frozen(kw_only=True)
class ControlContext:
    """What core lends to controls: clock, namespace, stores and the deadlines.

    ``store(task)`` is where that task keeps its results, ``store()`` the app's own; each is opened at its first use.
    """

    clock: Clock
    namespace: str
    store: Callable[..., Store]
    deadlines: Deadlines


class Control:
    """A feature. Core makes one a process; it is asked once a task what it brings for it.

    ``task`` is the compiled plan: ``task.name``, ``task.queue``, ``task.values`` (option name to value, the
    options of all controls among them), ``task.binder``, ``task.is_async``. Returning ``None``, or ``nxt`` unchanged,
    means "this task doesn't use me", at no cost. ``wrap`` is asked twice: for plain messages, whose values are the
    task's, and with ``task.overridden`` for those with options of their own, to be read by ``run.setting(name)``.
    Override ``around`` *or* the closure pair, not both.
    """

    def __init__(self, context: ControlContext) -> None:
        self.context = context

    def needs(self, values: Mapping[str, Any]) -> Mapping[Capability, str]:
        """Return what the broker must be able to do for these option values, each with the option as users wrote it."""
        return {}

    def needs_store(self, values: Mapping[str, Any]) -> bool:
        """Return whether these option values need the task's store: one that isn't installed is refused at push."""
        return False

    def stamp(self, message: Message, values: Mapping[str, Any]) -> None:
        """Write what the message must carry. Publisher's thread, per message; ``values`` hold for this message."""

    def gate(self, task: Any) -> Gate | None:
        """Return this task's gate."""
        return None

    def policy(self, task: Any) -> Policy | None:
        """Return this task's policy; the same object for several tasks lets it batch over them."""
        return None

    def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        """Return a call around ``nxt`` for blocking worlds: ``call(run) -> Outcome``; failures come back as data."""
        return nxt

    def wrap_async(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        """Return a coroutine function around ``nxt`` for the asyncio world."""
        return nxt

    def around(self, call: Run) -> Around:
        """Yield effects around the call, in any world; return the Outcome."""
        raise NotImplementedError
