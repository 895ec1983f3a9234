"""Control ``result``: stores what a job returned, or how it ended, for ``job.get()``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from boost_core.contracts.control import Control, ControlContext, Policy
from boost_core.contracts.store import Store
from boost_core.errors import text_of, traceback_text
from boost_core.options import duration, option
from boost_core.types import Ack, Cancelled, Dead, Done, Drop, Ended, Failed, Next, Outcome, Run, RunnerCall, TimedOut


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be more than 0 seconds"


@attrs.frozen(kw_only=True)
class ResultOptions:
    """Task options of ``result``."""

    results: bool = option(False, help="Store what the function returns, for job.get().", message=True)
    result_ttl: float = option(
        3600.0, help="Seconds a result is kept.", convert=duration, check=_positive, message=True
    )


class ResultRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a job ended, as the store keeps it (msgpack). ``value`` is encoded by the task's codec."""

    state: str
    attempt: int
    value: bytes | None = None
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None


@attrs.define(eq=False)
class EncodedValue:
    """A returned value, already bytes: encoded where it was made, before anything can change it."""

    data: bytes


_encode = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(ResultRecord).decode


def result_key(namespace: str, job_id: str) -> str:
    """Return the store's key of a job's result."""
    return f"{namespace}:result:{job_id}"


class ResultControl(Control):
    """Encodes the value in the pool, and stores the record before the message is acknowledged."""

    def __init__(self, context: ControlContext) -> None:
        super().__init__(context)
        self._policy = _ResultPolicy(context)

    def needs_store(self, values: Mapping[str, Any]) -> bool:
        return bool(values["results"])

    def policy(self, task: Any) -> Policy:
        return self._policy

    def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        if not task.overridden and not task.values["results"]:
            return nxt
        encode = task.binder.encode_value

        def call(run: Run) -> Outcome:
            outcome: Outcome = nxt(run)
            if type(outcome) is Done and run.setting("results"):
                return _encoded(outcome, encode)
            return outcome

        return call

    def wrap_async(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        if not task.overridden and not task.values["results"]:
            return nxt
        encode = task.binder.encode_value

        async def call(run: Run) -> Outcome:
            outcome: Outcome = await nxt(run)
            if type(outcome) is Done and run.setting("results"):
                return _encoded(outcome, encode)
            return outcome

        return call


def _encoded(outcome: Done, encode: Any) -> Outcome:
    try:
        return Done(EncodedValue(encode(outcome.value)))
    except Exception as error:
        return Failed(error, final=True)  # its side effects are done: a retry would do them again


class _ResultPolicy(Policy):
    def __init__(self, context: ControlContext) -> None:
        self._store = context.store
        self._namespace = context.namespace

    def commit(self, ended: Sequence[Ended]) -> None:
        batches: dict[tuple[Store, float], dict[str, bytes]] = defaultdict(dict)
        for end in ended:
            if not isinstance(end.verdict, Next) and end.run.setting("results"):
                key = result_key(self._namespace, end.run.message.id)
                batches[self._store(end.run.task), end.run.setting("result_ttl")][key] = _encode(_record(end))
        for (store, ttl), items in batches.items():
            store.put(items, ttl)


def _record(ended: Ended) -> ResultRecord:
    outcome, verdict, attempt = ended.outcome, ended.verdict, ended.run.attempt
    if type(outcome) is Done and type(outcome.value) is not EncodedValue:  # of a gate, or of a layer outside of ours
        outcome = _encoded(outcome, ended.run.task.binder.encode_value)
    if isinstance(outcome, Done) and isinstance(verdict, Ack):
        return ResultRecord(state="done", attempt=attempt, value=outcome.value.data)
    record = ResultRecord(state=_state(outcome, verdict), attempt=attempt, reason=_reason(outcome, verdict))
    if isinstance(outcome, Failed):
        record.error_type = type(outcome.error).__qualname__
        record.error_message = text_of(outcome.error, 16_384)
        record.traceback = traceback_text(outcome.error)
    return record


def _state(outcome: Outcome, verdict: Any) -> str:
    if isinstance(outcome, TimedOut):
        return "timed_out"
    if isinstance(outcome, Cancelled):
        return "cancelled"
    if isinstance(outcome, Drop):
        return "dropped"
    return "failed" if isinstance(outcome, Failed) else "dead" if isinstance(verdict, Dead) else "done"


def _reason(outcome: Outcome, verdict: Any) -> str:
    if isinstance(verdict, Dead):
        return text_of(verdict.reason)
    return text_of(getattr(outcome, "reason", _state(outcome, verdict)))
