"""A declared task: the function itself, and the ways to push it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

import attrs

from boost_core.app.job import Job, wait_until
from boost_core.names import check_name
from boost_core.plan.resolve import Declared

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.contracts.broker import SyncBroker
    from boost_core.plan.compile import TaskPlan
    from boost_core.types import Depth

P = ParamSpec("P")
R = TypeVar("R")

_NO_OPTIONS: Final[Mapping[str, Any]] = {}


@attrs.define(eq=False)
class Call(Generic[R]):
    """A call that hasn't been pushed yet: what ``push_many`` takes."""

    task: Task[..., R]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    own: Mapping[str, Any] = _NO_OPTIONS
    job_id: str | None = None


class Pushing(Generic[P, R]):
    """The ways to push: shared by a task and by ``task.options(...)``."""

    def __init__(self, task: Task[P, R], own: Mapping[str, Any] = _NO_OPTIONS, job_id: str | None = None) -> None:
        self._task, self._own, self._job_id = task, own, job_id

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return this call, to be pushed in a batch."""
        return Call(self._task, args, kwargs, self._own, self._job_id)

    def push(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Publish a job and return once the broker has stored it.

        Raises ``BadArgument`` or ``TypeError`` for arguments that can't be carried or don't fit,
        ``BodyTooLarge``, ``PublishError`` and ``BrokerUnavailable``.
        """
        task = self._task
        publisher = task.app.publisher
        frames = publisher.frames(task.plan, (Call(task, args, kwargs, self._own, self._job_id),))
        publisher.publish(task.broker, frames)
        return Job(frames[0].id, task, task.stores_result(self._own))

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Do what ``push`` does from a running event loop, without blocking it."""
        return (await self._task.app.apush_many([self.call(*args, **kwargs)]))[0]

    def push_many(self, calls: Iterable[Call[R] | Sequence[Any] | Mapping[str, Any]]) -> list[Job[R]]:
        """Publish many jobs in batches; return once all are stored.

        Each call is ``task.call(...)``, a tuple of positional arguments, or a dict of keyword arguments.
        """
        return self._task.app.push_many(self._calls(calls))

    async def apush_many(self, calls: Iterable[Call[R] | Sequence[Any] | Mapping[str, Any]]) -> list[Job[R]]:
        """Do what ``push_many`` does from a running event loop, without blocking it."""
        return await self._task.app.apush_many(self._calls(calls))

    def _calls(self, calls: Iterable[Any]) -> Iterable[Call[R]]:
        for call in calls:
            if isinstance(call, Call):
                yield call
            elif isinstance(call, Mapping):
                yield Call(self._task, (), call, self._own, self._job_id)
            elif isinstance(call, (tuple, list)):
                yield Call(self._task, call, {}, self._own, self._job_id)
            else:
                message = (
                    f"push_many of task {self._task.name!r} takes task.call(...), tuples of arguments "
                    f"or dicts of keyword arguments, not {type(call).__name__}"
                )
                raise TypeError(message)


class Configured(Pushing[P, R]):
    """A task with options set for the messages pushed through it."""


class Task(Pushing[P, R]):
    """A declared function. Calling it runs it here and now, always; ``push`` sends it to a worker."""

    def __init__(self, app: App, declared: Declared) -> None:
        self.app, self.declared = app, declared
        self.function: Callable[P, R] = declared.function
        self.name, self.queue = declared.name, declared.queue
        super().__init__(self)
        self._plan: TaskPlan | None = None
        self._broker: SyncBroker | None = None
        self._generation = 0
        functools.update_wrapper(self, declared.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        # As an attribute of a class the plain function counts; a method can't be pushed.
        return self if instance is None else functools.partial(self.function, instance)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<Task {self.name!r} on queue {self.queue!r}>"

    @property
    def plan(self) -> TaskPlan:
        """The resolved plan; the first use looks everything up."""
        if self._plan is None:
            self._plan = self.app.resolve(self)
        return self._plan

    @property
    def broker(self) -> SyncBroker:
        """The opened broker of this task, its queues declared."""
        if self._broker is None or self._generation != self.app.services.generation:
            self._generation = self.app.services.generation
            self._broker = self.app.publisher.broker(self.plan)
        return self._broker

    @property
    def is_open(self) -> bool:
        """True once the broker is open here: pushing needs no connecting first."""
        return self._broker is not None and self._generation == self.app.services.generation

    def stores_result(self, own: Mapping[str, Any]) -> bool:
        """Return whether a message with these options of its own leaves a result."""
        return bool(own["results"] if "results" in own else self.plan.values.get("results"))

    def options(self, *, job_id: str | None = None, **given: Any) -> Configured[P, R]:
        """Return this task with options for single messages: ``delay``, ``priority``, ``retries``, ``timeout``, ...

        ``job_id`` names the job yourself. Raises ``BadOption`` and ``UnsupportedCapability`` at once.
        """
        if job_id is not None:
            check_name("job", job_id)
        return Configured(self, self.app.resolver.message_values(self.plan, given), job_id)

    # --- the worker side, as scripts use it ----------------------------------------------------------

    def consume(self) -> None:
        """Work on this task here, in the background; the process stays alive until Ctrl-C, then drains.

        Other tasks' ``consume`` share the worker; a second call for this one warns and changes nothing, and so does one
        in a file that the ``boost`` command imports.
        """
        self.app.consume(self)

    def depth(self) -> Depth:
        """Return how many messages the queue has: ready, delayed, running, dead. Needs DEPTH."""
        return self.app.depth(self.plan)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Return True once the queue holds nothing ready, delayed or running; False after ``timeout`` seconds."""

        def idle() -> bool:
            depth = self.depth()
            return not (depth.ready or depth.delayed or depth.running)

        return wait_until(idle, timeout)

    def clear(self) -> int:
        """Remove all waiting and delayed messages of the queue; return how many. Needs PURGE."""
        count: int = self.broker.purge(self.plan.queue)
        return count


def batches(calls: Iterable[Call[Any]], size: int) -> Iterable[list[Call[Any]]]:
    """Return calls in lists of at most ``size``."""
    iterator = iter(calls)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
