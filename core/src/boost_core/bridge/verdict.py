"""What an outcome means by itself, and the frames that verdicts lead to."""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from boost_core.bridge.envelope import wrap_dead, wrap_payload
from boost_core.contracts.codec import Codec
from boost_core.errors import DecodeError, text_of, traceback_text
from boost_core.types import (
    ENVELOPE_VERSION,
    MICROSECONDS,
    Ack,
    Cancelled,
    Dead,
    DeadLetter,
    Done,
    Drop,
    Ended,
    Failed,
    Failure,
    Frame,
    Message,
    Next,
    RateLimited,
    Reject,
    Requeue,
    Retry,
    TimedOut,
    Verdict,
    WorkerLost,
)

PARKINGS: Final = 10
PARKED_SECONDS: Final = 60.0
_CUT_DIGITS: Final = 32  # what telling of the cut takes itself
KEPT_FAILURES: Final = 6  # the first one and the last five

ACK: Final = Ack()


@attrs.define(eq=False)
class UnknownTask:
    """Outcome of a message whose task this worker doesn't know: a rolling deploy, or a mistake."""


@attrs.define(eq=False)
class BadBody:
    """Outcome of a body that can't be read."""

    error: DecodeError


@attrs.define(eq=False)
class Released:
    """Outcome of a run that goes back to the broker at once, uncounted."""


RELEASED: Final = Released()


def verdict_of(outcome: object, message: Message) -> Verdict:
    """Return what an outcome leads to where no policy says otherwise."""
    if isinstance(outcome, (Done, Drop, Cancelled)):
        return ACK
    if isinstance(outcome, Requeue):
        return Next(outcome.delay, counted=False)
    if isinstance(outcome, RateLimited):
        return Next(outcome.retry_after, counted=False)
    if isinstance(outcome, UnknownTask) and message.parked < PARKINGS:
        return Next(PARKED_SECONDS, counted=False)
    return Dead(_reason(outcome))


def _reason(outcome: object) -> str:
    if isinstance(outcome, BadBody):
        return "newer_version" if outcome.error.newer else "bad_payload"
    if isinstance(outcome, Failed):
        return "bad_payload" if isinstance(outcome.error, DecodeError) else "failed"
    if isinstance(outcome, Reject):
        return text_of(outcome.reason)
    names = {UnknownTask: "unknown_task", WorkerLost: "worker_lost", TimedOut: "timed_out", Retry: "failed"}
    return names.get(type(outcome), type(outcome).__name__.lower())


def next_frame(ended: Ended, verdict: Next, codec: Codec, tag: str) -> Frame:
    """Return the frame of a message's next attempt, requeue or parking."""
    message, now = ended.run.message, int(ended.run.clock.time() * MICROSECONDS)
    again = msgspec.structs.replace(message, not_before=now + int(verdict.delay * MICROSECONDS))
    if verdict.counted:
        again.attempt += 1
        again.failures = _with_failure(ended, now)
    elif isinstance(ended.outcome, UnknownTask):
        again.parked += 1
    else:
        again.requeue += 1
    body = wrap_payload(tag, codec.encode_message(again))
    dedup_id = f"{again.id}:{again.attempt}:{again.requeue + again.parked}"
    queue = ended.run.delivery.queue
    return Frame(again.id, queue, body, again.priority, verdict.delay, None, None, dedup_id)


def dead_frame(ended: Ended, verdict: Dead, codec: Codec, tag: str, dead_queue: str, max_body: int) -> Frame:
    """Return the dead letter of a message, its original bytes inside; the traceback gives way where it is too large."""
    run = ended.run
    now = int(run.clock.time() * MICROSECONDS)
    known = not isinstance(ended.outcome, BadBody)
    letter = DeadLetter(
        v=ENVELOPE_VERSION,
        id=run.message.id,
        queue=run.delivery.queue,
        at=now,
        reason=text_of(verdict.reason),
        task=run.message.task if known else None,
        attempt=run.attempt if known else 0,
        failures=_with_failure(ended, now) if known else (),
    )
    letter.error, letter.traceback = error_of(ended)
    body = wrap_dead(tag, codec.encode_dead(letter), run.delivery.body)
    if len(body) > max_body:
        letter.traceback, letter.failures = None, ()
        body = wrap_dead(tag, codec.encode_dead(letter), run.delivery.body)
    if len(body) > max_body:  # only of a body that boost would not have published
        letter.cut = len(body) - max_body + _CUT_DIGITS
        body = wrap_dead(tag, codec.encode_dead(letter), run.delivery.body[: -letter.cut])
    return Frame(letter.id, dead_queue, body, dedup_id=f"{letter.id}:dead")


def error_of(ended: Ended) -> tuple[str | None, str | None]:
    """Return an outcome's error in one line, and its traceback, where it has them."""
    outcome: object = ended.outcome
    if isinstance(outcome, Failed):
        error = outcome.error
        return f"{type(error).__qualname__}: {text_of(error)}"[:1024], traceback_text(error)
    if isinstance(outcome, BadBody):
        return str(outcome.error), None
    if isinstance(outcome, UnknownTask):
        return f"no task named {text_of(ended.run.message.task)!r} is declared by the workers of this queue", None
    if isinstance(outcome, TimedOut):
        return f"over its time-out of {outcome.timeout:g} s", None
    if isinstance(outcome, WorkerLost):
        return f"{outcome.deaths} workers died while they held it", None
    return None, None


def _with_failure(ended: Ended, now: int) -> tuple[Failure, ...]:
    outcome, message = ended.outcome, ended.run.message
    if isinstance(outcome, Failed):
        name, text = type(outcome.error).__qualname__, text_of(outcome.error)
    else:
        name, text = type(outcome).__name__, (error_of(ended)[0] or "")[:1024]
    failures = (*message.failures, Failure(attempt=message.attempt, at=now, type=name, message=text))
    return failures if len(failures) <= KEPT_FAILURES else (failures[0], *failures[1 - KEPT_FAILURES :])
