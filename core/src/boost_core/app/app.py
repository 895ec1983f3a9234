"""The app: where tasks are declared, and what they share."""

from __future__ import annotations

import inspect
import itertools
import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar

import attrs

from boost_core.app.job import Job
from boost_core.app.lazy import lazy
from boost_core.app.publish import Publisher, not_stored
from boost_core.app.services import Services
from boost_core.app.task import Call, Task, batches
from boost_core.app.waiter import ResultWaiters
from boost_core.contracts.specs import Spec
from boost_core.errors import BadOption, BoostError, BrokerUnavailable, PublishError, TaskConflict, TaskUnknown
from boost_core.forks import on_fork
from boost_core.names import check_name
from boost_core.plan.compile import add_runner
from boost_core.plan.resolve import Declared, Resolver
from boost_core.registry.registry import Registry, load_object
from boost_core.settings import Settings
from boost_core.types import Clock, Depth, SystemClock

if TYPE_CHECKING:
    from boost_core.contracts.broker import SyncBroker
    from boost_core.plan.compile import TaskPlan
    from boost_core.types import Frame

P = ParamSpec("P")
R = TypeVar("R")

PUSH_BATCH = 1000
_WORKER = "boost_core.worker.worker:Worker"
_TASK_OF = attrgetter("task")
_CALLS = frozenset({Call})
_CONSUMER = "boost_core.worker.consumer:Consumer"


_DECLARING: Final = ContextVar("declaring", default=False)


@contextmanager
def declaring() -> Iterator[None]:
    """Let files be imported in the block for their declarations only: ``consume()`` warns and starts nothing."""
    token = _DECLARING.set(True)
    try:
        yield
    finally:
        _DECLARING.reset(token)


class App:
    """A set of tasks with one configuration. Nothing is read, looked up or connected before the first use.

    ``broker`` and ``store`` are names, URLs or specs; ``namespace`` prefixes queues and keys; ``disable`` names
    plugins or distributions that are not to be loaded; further keywords are defaults of task options.
    """

    def __init__(self, name: str = "app", *, clock: Clock | None = None, **given: Any) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self._given = given
        self._overrides: dict[str, Any] = {}
        self._tasks: dict[str, Task[..., Any]] = {}
        self._lock = threading.RLock()
        self._consumer: Any = None
        on_fork(self)

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread of the parent held would never be free again."""
        self._lock = threading.RLock()

    # --- declaring ---------------------------------------------------------------------------------

    def boost(
        self, queue: str | None = None, /, *, name: str | None = None, **options: Any
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Return a decorator that declares a function as a task of this app.

        ``queue`` is the queue's name, else the task's; ``name`` the task's, else the queue argument, else the
        function's qualified name. ``options`` are checked when the task is first used, or by ``app.check()``. Raises
        ``TaskConflict`` where another function has the name, ``BadName`` for unusable names, ``BadOption`` for a
        generator function.
        """
        if callable(queue):
            message = "write @boost() with parentheses, or @boost('queue')"
            raise TypeError(message)

        def declare(function: Callable[P, R]) -> Task[P, R]:
            return self._declare(function, queue, name, options)

        return declare

    def _declare(
        self, function: Callable[P, R], queue: str | None, name: str | None, options: Mapping[str, Any]
    ) -> Task[P, R]:
        plain = inspect.unwrap(function)
        file, line = _place(plain)
        task_name = check_name("task", name or queue or plain.__qualname__)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise BadOption(
                f"task {task_name!r} at {file}:{line} is a generator function: calling it runs nothing of it.",
                "Return a list instead of yielding, or push a job for each item.",
            )
        declared = Declared(
            name=task_name,
            queue=check_name("queue", queue or task_name),
            function=function,
            origin=None if queue or name else file,
            place=f"{file}:{line}",
            options=dict(options),
        )
        with self._lock:
            other = self._tasks.get(task_name)
            if other is not None and not _same_place(other.declared, declared):
                places = (other.declared.place, declared.place)
                raise TaskConflict("task name", task_name, places, 'Give one of them a name of its own: name="..."')
            task: Task[P, R] = Task(self, declared)
            self._tasks[task_name] = task
        return task

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All declared tasks by name."""
        return dict(self._tasks)

    def task(self, name: str) -> Task[..., Any]:
        """Return a declared task. Raises ``TaskUnknown``."""
        task = self._tasks.get(name)
        if task is None:
            raise TaskUnknown(name, list(self._tasks))
        return task

    # --- what resolves at first use --------------------------------------------------------------------

    @lazy
    def settings(self) -> Settings:
        """The app's settings, read at first use."""
        settings = Settings.load(Path.cwd(), os.environ, self._given)
        settings.override(self._overrides)
        return settings

    @lazy
    def registry(self) -> Registry:
        """The installed plugins."""
        registry = Registry(self.settings.get("disable"))
        self.settings.check_tables(registry.known(self._given_specs()))
        registry.load_plugins()
        registry.configure(self.settings)
        return registry

    def _given_specs(self) -> list[Spec]:
        """Return the specs that stand in code instead of names: of the app, and of tasks."""
        places = (self._given, self._overrides, *(task.declared.options for task in self.tasks.values()))
        return [value for place in places for value in place.values() if isinstance(value, Spec)]

    @lazy
    def services(self) -> Services:
        """The opened brokers, stores, codecs and controls."""
        return Services(self.registry, self.settings, self.clock)

    @lazy
    def resolver(self) -> Resolver:
        """Turns declarations into plans."""
        return Resolver(self.registry, self.settings, self.services.codec, self.services.control)

    @lazy
    def publisher(self) -> Publisher:
        """Publishes this app's messages."""
        return Publisher(self.services)

    @lazy
    def waiters(self) -> ResultWaiters:
        """Wait for this app's results."""
        return ResultWaiters(self.services)

    def resolve(self, task: Task[..., Any], overrides: Mapping[str, Any] | None = None) -> TaskPlan:
        """Return a task's plan, ``overrides`` laid over its options."""
        with self._lock:
            return self.resolver.resolve(task.declared, {**self._overrides, **(overrides or {})})

    def override(self, **given: Any) -> None:
        """Lay options over all that is said of them elsewhere, as the command line does; before the first use."""
        self._overrides.update(given)

    def check(self) -> None:
        """Resolve every task now; raise the first error that a push or a worker would meet, all others noted on it."""
        errors: list[BoostError] = []
        for task in self.tasks.values():
            try:
                add_runner(self.resolve(task))
            except BoostError as error:
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"also: {other}")
            raise errors[0]

    # --- publishing --------------------------------------------------------------------------------

    def send(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        **given: Any,
    ) -> Job[Any]:
        """Push a job by its task's name; the task needn't be declared here (its queue is ``queue``, else its name)."""
        known = self._tasks.get(task) or self._foreign(task, queue)
        if queue not in (None, known.queue):
            raise BadOption(f"task {task!r} is declared here with the queue {known.queue!r}, not {queue!r}.")
        return (known.options(**given) if given else known).push(*args, **(kwargs or {}))

    def _foreign(self, name: str, queue: str | None) -> Task[..., Any]:
        """Return a stand-in for a task that other processes declare."""

        def elsewhere(*args: Any, **kwargs: Any) -> Any:
            message = f"task {name!r} is declared elsewhere; it can only be pushed from here"
            raise BoostError(message)

        check_name("task", name)
        declared = Declared(
            name=name,
            queue=check_name("queue", queue or name),
            function=elsewhere,
            origin=None,
            place="app.send",
            options={},
        )
        return Task(self, declared)

    def push_many(self, calls: Iterable[Call[Any]]) -> list[Job[Any]]:
        """Publish calls of any tasks, in batches; return their jobs once all are stored.

        A batch with a call that can't be carried raises what ``push`` does, and nothing of it is published.
        ``PublishError`` names by their places among all calls those that are not stored; up to the end of that batch
        all others are, and nothing after it was tried.
        """
        jobs: list[Job[Any]] = []
        for batch in batches(calls, PUSH_BATCH):
            by_broker = self._frames(batch, jobs)
            for number, (broker, frames) in enumerate(by_broker.items()):
                try:
                    self.publisher.publish(broker, frames)
                except (PublishError, BrokerUnavailable) as error:
                    _raise_for_calls(error, batch, len(jobs) - len(batch), list(by_broker)[number:])
        return jobs

    async def apush_many(self, calls: Iterable[Call[Any]]) -> list[Job[Any]]:
        """Do what ``push_many`` does from a running event loop, without blocking it."""
        import asyncio

        jobs: list[Job[Any]] = []
        for batch in batches(calls, PUSH_BATCH):
            by_broker = self._ready_frames(batch, jobs)
            if by_broker is None:  # the first use of a broker connects: not on the loop
                by_broker = await asyncio.to_thread(self._frames, batch, jobs)
            for number, (broker, frames) in enumerate(by_broker.items()):
                try:
                    await self.publisher.apublish(broker, frames)
                except (PublishError, BrokerUnavailable) as error:
                    _raise_for_calls(error, batch, len(jobs) - len(batch), list(by_broker)[number:])
        return jobs

    def _frames(self, batch: Sequence[Call[Any]], jobs: list[Job[Any]]) -> dict[SyncBroker, list[Frame]]:
        """Encode a batch, all of it before anything is published; add its jobs."""
        _check_calls(batch)
        by_broker: dict[SyncBroker, list[Frame]] = defaultdict(list)
        made: list[Job[Any]] = []
        for task, its in itertools.groupby(batch, _TASK_OF):
            calls = list(its)
            frames = self.publisher.frames(task.plan, calls)
            by_broker[task.broker].extend(frames)
            plain = task.stores_result({})
            made += [
                Job(frame.id, task, task.stores_result(call.own) if call.own else plain)
                for frame, call in zip(frames, calls, strict=True)
            ]
        jobs.extend(made)
        return by_broker

    def _ready_frames(self, batch: Sequence[Call[Any]], jobs: list[Job[Any]]) -> Any:
        _check_calls(batch)
        return self._frames(batch, jobs) if all(call.task.is_open for call in batch) else None

    # --- working -----------------------------------------------------------------------------------

    def worker(self, *tasks: Task[..., Any], **given: Any) -> Any:
        """Return a ``Worker`` on these tasks, else all: ``with`` or ``async with`` it, or call ``start``, ``stop``.

        Raises ``BadOption`` where there is no task.
        """
        chosen = tasks or tuple(self.tasks.values())
        if not chosen:
            raise BadOption(
                f"app {self.name!r} declares no task to work on.",
                "Import the modules that declare its tasks first, or name the tasks: app.worker(task).",
            )
        return load_object(_WORKER)(self, chosen, **given)

    def consume(self, task: Task[..., Any]) -> None:
        """Work on a task in the background of this process; see ``Task.consume``."""
        if _DECLARING.get():
            text = (
                f"consume() of task {task.name!r} does nothing where the boost command imports its file; "
                "put it under if __name__ == '__main__':"
            )
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            return
        with self._lock:
            consumer = self._consumer
            if consumer is None or not consumer.alive:
                consumer = load_object(_CONSUMER)(self)
            if task.name in consumer.tasks:
                text = f"task {task.name!r} is consumed in this process already; the second consume() changes nothing"
                warnings.warn(text, RuntimeWarning, stacklevel=3)
                return
            consumer.add(task)
            self._consumer = consumer  # one that couldn't start isn't asked again

    def depth(self, plan: TaskPlan) -> Depth:
        """Return how many messages a plan's queue has, dead letters included."""
        broker = self.publisher.broker(plan)
        dead = broker.depth(f"{plan.queue}.dead")
        return attrs.evolve(broker.depth(plan.queue), dead=dead.ready)

    def close(self) -> None:
        """Publish what was handed over, and close all brokers and stores. The app may be used again."""
        if "publisher" in self.__dict__:
            self.publisher.close()
        if "services" in self.__dict__:
            self.services.close()


def _check_calls(batch: Sequence[Any]) -> None:
    if not _CALLS.issuperset(map(type, batch)):
        odd = next(call for call in batch if type(call) is not Call)
        message = f"app.push_many takes task.call(...), not {type(odd).__name__}"
        raise TypeError(message)


def _raise_for_calls(
    error: PublishError | BrokerUnavailable, batch: Sequence[Call[Any]], first: int, brokers: Sequence[SyncBroker]
) -> NoReturn:
    """Raise what an error of the first of ``brokers`` means for the calls of a batch, which begins at ``first``.

    The others of ``brokers`` were not tried; those that aren't named have stored their part.
    """
    left = set(brokers)
    tried = [first + place for place, call in enumerate(batch) if call.task.broker is brokers[0]]
    untried = [first + place for place, call in enumerate(batch) if call.task.broker in left - {brokers[0]}]
    if isinstance(error, PublishError):
        failed = [*(tried[index] for index in error.failed), *untried]
        raise PublishError(error.broker, error.problem, failed, [tried[index] for index in error.unsure]) from error
    if first == 0 and len(tried) + len(untried) == len(batch):
        raise error  # nothing at all is stored
    raise not_stored(error, [*tried, *untried]) from error


def _place(function: Callable[..., Any]) -> tuple[str, int]:
    code = getattr(function, "__code__", None)
    if code is None:
        return f"<{type(function).__name__}>", 0
    file = code.co_filename
    return (file if file.startswith("<") else os.path.realpath(file)), code.co_firstlineno


def _same_place(one: Declared, other: Declared) -> bool:
    """One function reached twice (``__main__`` and a module), or redefined in an interactive session."""
    interactive = one.place.startswith("<") or other.place.startswith("<") or "ipykernel" in other.place
    return interactive or one.place == other.place
