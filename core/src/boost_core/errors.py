"""Every error that boost raises: what is wrong, with which name and value, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

_SHOWN_NAME = 60


class BoostError(Exception):
    """Base of all errors of boost. ``code`` is stable and anchors the page ``docs/errors.md``."""

    code: ClassVar[str] = "boost"

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields are the arguments; notes, which copies of slotted classes lose, are in __dict__.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[BoostError], fields: tuple[Any, ...], notes: dict[str, Any]) -> BoostError:
    error = kind(*fields)
    error.__dict__.update(notes)
    return error


def text_of(value: object, limit: int = 1024) -> str:
    """Return what a user raised or gave as a reason as text of at most ``limit`` characters that any codec carries.

    Never raises, whatever the object's own code does: one job's odd error must not hold up those settled with it.
    """
    try:
        text = str(value)
    except BaseException as failed:
        text = f"<{type(value).__qualname__} without a text: its __str__ raised {type(failed).__qualname__}>"
    return _carried(text)[:limit]


def _carried(text: str) -> str:
    """Return text with its lone surrogates, as names of files may have them, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def traceback_text(error: BaseException, limit: int = 16_384) -> str:
    """Return an exception's traceback as text, its middle left out where it is over ``limit`` characters."""
    import traceback

    try:
        lines = traceback.format_exception(error)
    except BaseException:  # the error's own code, such as a __bool__ that raises
        lines = [*traceback.format_tb(error.__traceback__), f"{type(error).__qualname__}: {text_of(error)}\n"]
    text = _carried("".join(lines))
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  [... {len(text) - limit} characters left out ...]\n{text[-half:]}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _guess(name: str, known: Sequence[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return close[0] if close else None


# --- plugins --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class PluginNotFound(BoostError):
    """No installed distribution provides the named plugin."""

    code: ClassVar[str] = "plugin-not-found"
    kind: ClassVar[str] = "plugin"

    name: str
    installed: Sequence[str] = ()
    distribution: str | None = None

    def __str__(self) -> str:
        head = f"no {self.kind} named {self.name!r} is installed."
        guess = None if self.distribution else _guess(self.name, self.installed)
        if guess:
            return f"{head} Did you mean {guess!r}?"
        label = f"Installed {self.kind}s:"
        lines = [head]
        if self.distribution:
            lines.append(f"  {'Install it:':<{len(label)}} pip install {self.distribution}")
        lines.append(f"  {label} {_listed(self.installed)}")
        return "\n".join(lines)


class BrokerNotFound(PluginNotFound):
    """The broker's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "broker-not-found"
    kind: ClassVar[str] = "broker"


class PoolNotFound(PluginNotFound):
    """The pool's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "pool-not-found"
    kind: ClassVar[str] = "pool"


class CodecNotFound(PluginNotFound):
    """The codec's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "codec-not-found"
    kind: ClassVar[str] = "codec"


class StoreNotFound(PluginNotFound):
    """The store's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "store-not-found"
    kind: ClassVar[str] = "store"


class ControlNotFound(PluginNotFound):
    """The control's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "control-not-found"
    kind: ClassVar[str] = "control"


@attrs.define(eq=False)
class PluginBroken(BoostError):
    """An installed plugin cannot be used: its module fails to import or hands over something wrong."""

    code: ClassVar[str] = "plugin-broken"

    kind: str
    name: str
    distribution: str
    version: str
    problem: str
    hint: str | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.kind} {self.name!r} ({self.distribution} {self.version}) failed to import.",
            f"  {self.problem}",
        ]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


@attrs.frozen
class Provider:
    """Where a plugin comes from: distribution, version, and the folder of its package."""

    distribution: str
    version: str
    location: str


@attrs.define(eq=False)
class PluginConflict(BoostError):
    """Two installed distributions provide the same name of one kind."""

    code: ClassVar[str] = "plugin-conflict"

    kind: str
    name: str
    providers: Sequence[Provider]

    def __str__(self) -> str:
        count = {2: "two", 3: "three"}.get(len(self.providers), str(len(self.providers)))
        width = max(len(f"{p.distribution} {p.version}") for p in self.providers)
        lines = [f"{count} plugins provide the {self.kind} {self.name!r}:"]
        lines += [f"  {f'{p.distribution} {p.version}':<{width}}   ({p.location})" for p in self.providers]
        last = self.providers[-1].distribution
        lines.append(
            f"  Uninstall one, or disable one: BOOST_DISABLE={last}"
            if self.kind == "control"  # they take part by being installed: nothing chooses one
            else f'  Uninstall one, or say which: {self.kind}="{self.name}@{last}"'
        )
        return "\n".join(lines)


@attrs.define(eq=False)
class PluginIncompatible(BoostError):
    """A plugin is written for another plugin API than this core speaks."""

    code: ClassVar[str] = "plugin-incompatible"

    distribution: str
    version: str
    api: int
    core_version: str
    core_api: int

    def __str__(self) -> str:
        short = ".".join(self.core_version.split(".")[:2])
        release = ".".join(self.version.split(".")[:2])
        fix = (
            f"Upgrade boost-core, or install {self.distribution}<{release}."
            if self.api > self.core_api
            else f"Upgrade {self.distribution}, or install boost-core<{short}."
        )
        return (
            f"{self.distribution} {self.version} is written for plugin API {self.api}; "
            f"boost-core {short} speaks API {self.core_api}.\n  {fix}"
        )


@attrs.define(eq=False)
class UnsupportedCapability(BoostError):
    """Something was asked of a broker that it cannot do. ``asker`` and ``asks`` say who wanted what."""

    code: ClassVar[str] = "unsupported-capability"

    asker: str
    asks: str
    broker: str
    capability: str
    providers: Sequence[str] = ()
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.asker} asks for {self.asks}, but broker {self.broker!r} has no capability {self.capability!r}."
        if self.providers:
            text += f"\n  Installed brokers that have it: {_listed(self.providers)}."
        if self.hint:
            text += f"\n  {self.hint}"
        return text


# --- options, names, declarations -------------------------------------------------------------------


@attrs.define(eq=False)
class BadOption(BoostError):
    """An option is unknown, misspelt, of the wrong type or out of its range."""

    code: ClassVar[str] = "bad-option"

    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem

    @classmethod
    def unknown(cls, owner: str, name: str, known: Sequence[str]) -> BadOption:
        """Return the error for an option that ``owner`` ("broker 'kafka'") doesn't have."""
        guess = _guess(name, known)
        tail = f" Did you mean {guess!r}?" if guess else f"\n  Its options: {_listed(known)}"
        return cls(f"{owner} has no option {name!r}.{tail}")


@attrs.define(eq=False)
class BadName(BoostError):
    """A queue, task, namespace or plugin name can't be used."""

    code: ClassVar[str] = "bad-name"

    what: str
    name: str
    problem: str

    def __str__(self) -> str:
        shown: object = self.name
        if isinstance(shown, str) and len(shown) > _SHOWN_NAME:
            shown = f"{shown[: _SHOWN_NAME - 3]}..."
        return f"{self.what} name {shown!r} {self.problem}"


@attrs.define(eq=False)
class TaskConflict(BoostError):
    """Two functions claim one task name, or one queue where neither said so."""

    code: ClassVar[str] = "task-conflict"

    what: str
    name: str
    places: Sequence[str]
    fix: str

    def __str__(self) -> str:
        lines = [f"two functions claim the {self.what} {self.name!r}:"]
        lines += [f"  {place}" for place in self.places]
        lines.append(f"  {self.fix}")
        return "\n".join(lines)


@attrs.define(eq=False)
class TaskUnknown(BoostError):
    """No task of that name is declared in this app."""

    code: ClassVar[str] = "task-unknown"

    name: str
    known: Sequence[str] = ()

    def __str__(self) -> str:
        guess = _guess(self.name, self.known)
        tail = f" Did you mean {guess!r}?" if guess else f"\n  Declared tasks: {_listed(self.known)}"
        return f"no task named {self.name!r} is declared.{tail}"


@attrs.define(eq=False)
class ControlMismatch(BoostError):
    """A control can't serve a task: it has no form for the task's colour, or its order is impossible."""

    code: ClassVar[str] = "control-mismatch"

    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem


@attrs.define(eq=False)
class ControlError(BoostError):
    """A control's own code raised inside a run; the run failed because of it."""

    code: ClassVar[str] = "control-error"

    control: str
    distribution: str
    problem: str

    def __str__(self) -> str:
        return f"control {self.control!r} ({self.distribution}) raised: {self.problem}"


@attrs.define(eq=False)
class TargetError(BoostError):
    """A TARGET of the command line names nothing that can be used."""

    code: ClassVar[str] = "target"

    target: str
    problem: str

    def __str__(self) -> str:
        return f"target {self.target!r}: {self.problem}"


# --- messages -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class BadArgument(BoostError):
    """An argument can't be carried, or isn't what the function's signature says; named, at push."""

    code: ClassVar[str] = "bad-argument"

    task: str
    parameter: str
    problem: str

    def __str__(self) -> str:
        return f"task {self.task!r}, argument {self.parameter!r}: {self.problem}"


@attrs.define(eq=False)
class BodyTooLarge(BoostError):
    """The encoded message is over what the broker takes."""

    code: ClassVar[str] = "body-too-large"

    task: str
    size: int
    broker: str
    limit: int

    def __str__(self) -> str:
        return (
            f"task {self.task!r}: the message is {self.size:,} bytes;"
            f" broker {self.broker!r} takes at most {self.limit:,}.\n"
            f"  Push a reference (a path, a key) instead of the data."
        )


@attrs.define(eq=False)
class DecodeError(BoostError):
    """A body is not an envelope that any installed codec can read. ``newer``: it is of a later version."""

    code: ClassVar[str] = "decode"

    problem: str
    newer: bool = False

    def __str__(self) -> str:
        return self.problem


# --- brokers and stores -----------------------------------------------------------------------------


@attrs.define(eq=False)
class BrokerUnavailable(BoostError):
    """The broker can't be reached or can't keep what was asked; says what was tried and the remedy."""

    code: ClassVar[str] = "broker-unavailable"

    broker: str
    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"broker {self.broker!r}: {self.problem}"
        return f"{text}\n  {self.fix}" if self.fix else text


class ConnectionLost(BrokerUnavailable):
    """A working connection broke; core reconnects."""

    code: ClassVar[str] = "connection-lost"


@attrs.define(eq=False)
class QueueGone(BoostError):
    """A queue that was being consumed no longer exists; only that queue stops."""

    code: ClassVar[str] = "queue-gone"

    broker: str
    queue: str

    def __str__(self) -> str:
        return f"broker {self.broker!r}: queue {self.queue!r} no longer exists."


@attrs.define(eq=False)
class PublishError(BoostError):
    """A batch was not stored whole: indexes of the frames that surely failed, and of the unsure ones."""

    code: ClassVar[str] = "publish"

    broker: str
    problem: str
    failed: Sequence[int] = ()
    unsure: Sequence[int] = ()

    def __str__(self) -> str:
        return (
            f"broker {self.broker!r}: {self.problem} "
            f"({len(self.failed)} not stored, {len(self.unsure)} unsure; every other message of the batch is stored)"
        )


@attrs.define(eq=False)
class SettleError(BoostError):
    """Some deliveries of a batch could not be settled; the rest were."""

    code: ClassVar[str] = "settle"

    broker: str
    problem: str
    failed: Sequence[object] = ()

    def __str__(self) -> str:
        return f"broker {self.broker!r}: {len(self.failed)} deliveries could not be settled: {self.problem}"


@attrs.define(eq=False)
class StoreUnavailable(BoostError):
    """The store can't be reached or written."""

    code: ClassVar[str] = "store-unavailable"

    store: str
    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"store {self.store!r}: {self.problem}"
        return f"{text}\n  {self.fix}" if self.fix else text


@attrs.define(eq=False)
class Closed(BoostError):
    """Something was used after it was closed."""

    code: ClassVar[str] = "closed"

    what: str

    def __str__(self) -> str:
        return f"{self.what} is closed."


# --- results ----------------------------------------------------------------------------------------


@attrs.define(eq=False)
class ResultsOff(BoostError):
    """``job.get()`` on a task that stores no results."""

    code: ClassVar[str] = "results-off"

    task: str

    def __str__(self) -> str:
        return (
            f"task {self.task!r} stores no results, so job.get() would never return.\n"
            f"  Turn them on: @boost(results=True)"
        )


@attrs.define(eq=False)
class ResultTimeout(BoostError, TimeoutError):
    """No result came within the time given."""

    code: ClassVar[str] = "result-timeout"

    job_id: str
    timeout: float

    def __str__(self) -> str:
        return f"job {self.job_id} has no result after {self.timeout:g} s."


@attrs.define(eq=False)
class JobFailed(BoostError):
    """The job ended without a value: ``state`` is failed, dead, dropped, timed_out or cancelled."""

    code: ClassVar[str] = "job-failed"

    job_id: str
    task: str
    state: str
    reason: str
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        text = f"job {self.job_id} of task {self.task!r} ended {self.state}: {self.reason}"
        if self.error_type:
            text += f"\n  {self.error_type}: {self.error_message}"
        return text


@attrs.define(eq=False)
class JobTimeout(BoostError):
    """Raised by ``current.check()`` in a task whose time is up."""

    code: ClassVar[str] = "job-timeout"

    timeout: float

    def __str__(self) -> str:
        return f"the job's time-out of {self.timeout:g} s has passed."


class JobCancelled(BoostError):
    """Raised by ``current.check()`` in a task that was cancelled."""

    code: ClassVar[str] = "job-cancelled"
