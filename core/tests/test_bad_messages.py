"""What is on a queue and shouldn't be: unreadable bodies, later versions, unknown tasks. Neighbours are unharmed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from boost_core import App, Job, current
from boost_core.testing import FakeClock
from boost_core.types import Frame
from letters import dead_letters, eventually

HEAD = b'json\n{"v":1,"id":"x","task":"mixed","at":1,"args":'

BAD = {
    "nothing": (b"", "the body is no message of boost: it starts with b'' instead of a codec's name"),
    "no text": (
        b"\x80\x04K",
        "the body is no message of boost: it starts with b'\\x80\\x04K' instead of a codec's name",
    ),
    "something long": (
        b"x" * 10_000,
        "the body is no message of boost: it starts with b'xxxxxxxxxxxxxxxxxxxxxxxx' instead of a codec's name",
    ),
    "half an envelope": (b"json\n{", "the body is no message of boost: Input data was truncated"),
    "no envelope": (b"json\n[]", "the body is no message of boost: Expected `object`, got `array`"),
    "another envelope": (b'json\n{"v":1}', "the body is no message of boost: Object missing required field `id`"),
    "an impossible version": (
        b'json\n{"v":0,"id":"x","task":"mixed","at":1}',
        "the body is no message of boost: its version is 0",
    ),
    "a codec that isn't installed": (
        b"msgpack\n\x81",
        "no codec named 'msgpack' is installed.\n  Install it:       pip install boost-codec-msgpack\n  Installed codecs: json",
    ),
    "arguments that are none": (
        HEAD + b"{}}",
        "DecodeError: task 'mixed': the message's arguments can't be read: Expected `array`, got `object`",
    ),
    "arguments too many": (
        HEAD + b"[1,2]}",
        "DecodeError: task 'mixed': the message's arguments don't fit the function: mixed() too many positional arguments",
    ),
    "an argument of another type": (
        HEAD + b'["one"]}',
        "DecodeError: task 'mixed', argument 'number': Expected `int`, got `str`",
    ),
}
OWN = b'json\n{"v":1,"id":"x","task":"mixed","at":1,"args":[1],"options":'
BAD |= {
    "an own option of another type": (
        OWN + b'{"retries":"many"}}',
        "task 'mixed': option retries='many' can't be used: Expected `int`, got `str`",
    ),
    "an own option out of its range": (
        OWN + b'{"timeout":0}}',
        "task 'mixed': option timeout=0 can't be used: it must be more than 0 seconds",
    ),
    "an own option of the whole task": (
        OWN + b'{"retry_delay":5}}',
        "task 'mixed': option 'retry_delay' belongs to the whole task; a message can't set it",
    ),
}
HIGH = b'json\n{"v":1,"id":"x","task":"mixed","at":1,"args":[1],"priority":'
BAD |= {
    "a priority that the broker lacks": (HIGH + b"1000}", "its priority 1000 is outside 0 to 255"),
    "a priority below all": (HIGH + b"-1}", "its priority -1 is outside 0 to 255"),
}
NEWER = (
    b'json\n{"v":2,"id":"n","shape":"unheard of"}',
    "the message is of version 2; this worker reads up to version 1. Upgrade it.",
)


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.parametrize("what", [*BAD, "a later version"])
def test_an_unreadable_message_is_a_dead_letter_and_harms_no_neighbour(app: App, what: str, pool: str) -> None:
    """It becomes a dead letter that says what is wrong, at once and with its bytes; messages around it run."""

    @app.boost("mixed", results=True, pool=pool)
    def good(number: int) -> int:
        return number

    body, error = BAD.get(what, NEWER)
    before = good.push(1)
    good.broker.publish([Frame("bad", "mixed", body)], 5.0)
    after = good.push(2)
    with app.worker() as worker:
        assert [before.get(timeout=10), after.get(timeout=10)] == [1, 2]
        (letter,) = eventually(lambda: dead_letters(good))
        eventually(worker.is_idle)

    assert letter.reason == ("newer_version" if what == "a later version" else "bad_payload")
    assert letter.error == error
    assert letter.body == body
    assert (letter.task, letter.attempt) == (("mixed", 1) if "argument" in what else (None, 0))
    assert good.depth().ready == 0


def test_own_options_of_controls_that_arent_here_do_no_harm(app: App) -> None:
    """A publisher may have more installed than its worker: what nobody here knows is passed over, the rest holds."""

    @app.boost("mixed", results=True)
    def attempts() -> None:
        raise ValueError

    body = b'json\n{"v":1,"id":"x","task":"mixed","at":1,"options":{"colour":"red","retries":1,"results":false}}'
    attempts.broker.publish([Frame("x", "mixed", body)], 5.0)
    with app.worker():
        (letter,) = eventually(lambda: dead_letters(attempts))

    assert (letter.reason, letter.attempt) == ("failed", 2)


def test_an_unreadable_message_is_told_without_our_own_frames(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """One line says what is wrong with it; a traceback of the worker's own code would help nobody."""
    job = app.boost("mixed")(lambda: None)
    job.broker.publish([Frame("x", "mixed", b"?")], 5.0)
    with app.worker():
        eventually(lambda: dead_letters(job))

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().endswith(
        " of ? is a dead letter: bad_payload: the body is no message of boost: it starts with b'?' instead of a codec's name"
    )
    assert record.exc_info is None


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that only the test moves."""
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[App]:
    """Yield an app whose time is the fake clock's."""
    app = App("timed", broker="memory", store="memory", clock=clock)
    yield app
    app.close()


def test_many_unreadable_messages_in_a_row_are_taken_one_a_second(
    timed: App, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """From the eleventh on one a second is taken, each said aloud, until a good one comes; other queues don't wait."""

    @timed.boost("mixed", results=True, concurrency=1)
    def good(number: int) -> int:
        return number

    @timed.boost("other", results=True, concurrency=1)
    def other() -> str:
        return "ran"

    def state() -> tuple[int, int]:
        """Return how many are dead and how many still wait, after the worker has looked at all of its queues twice."""
        for _ in range(2):
            assert other.push().get(timeout=10) == "ran"
        return len(dead_letters(good)), good.depth().ready

    def publish(count: int) -> None:
        good.broker.publish([Frame(f"bad-{number}", "mixed", b"?") for number in range(count)], 5.0)

    publish(13)
    job = good.push(7)
    publish(10)
    with timed.worker():
        eventually(lambda: len(dead_letters(good)) == 11)
        assert state() == (11, 13)
        for dead in (12, 13):
            clock.advance(0.75)
            assert state() == (dead - 1, 24 - dead + 1)
            clock.advance(0.25)
            eventually(lambda wanted=dead: state()[0] == wanted)
            assert state() == (dead, 24 - dead)
        clock.advance(1.0)
        eventually(lambda: state() == (23, 0))

    assert job.get(timeout=10) == 7
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [text for text in said if "in a row" in text] == [
        f"{count} unreadable messages in a row on mixed: taking one a second" for count in (11, 12, 13)
    ]


def test_an_unknown_task_is_parked_ten_times_then_dead(timed: App, clock: FakeClock) -> None:
    """A task that this worker doesn't know waits ten minutes for a deploy that does; its neighbours run."""

    @timed.boost("shared", results=True, name="known")
    def known() -> str:
        return "ran"

    job = timed.send("newer", [1], queue="shared")
    (sent,) = known.broker.peek("shared", 1)
    with timed.worker() as worker:
        assert known.push().get(timeout=10) == "ran"
        for parked in range(10):
            eventually(lambda count=parked: worker.counts["requeued"] == count + 1)
            clock.advance(59)
            assert (known.depth().delayed, known.depth().ready) == (1, 0)
            clock.advance(1)
        (letter,) = eventually(lambda: dead_letters(known))

    assert (letter.id, letter.reason, letter.task, letter.attempt) == (job.id, "unknown_task", "newer", 1)
    assert letter.error == "no task named 'newer' is declared by the workers of this queue"
    assert b'"args":[1]' in sent.body
    assert b'"args":[1]' in letter.body


def test_a_parked_task_runs_once_its_worker_knows_it(timed: App, clock: FakeClock) -> None:
    """A rolling deploy loses nothing: the message waits for a worker with the new code, and no attempt is counted."""

    @timed.boost("shared", name="known")
    def known() -> None: ...

    job = timed.send("newer", [4], queue="shared")
    with timed.worker(known) as old:
        eventually(lambda: old.counts["requeued"] == 1)

    @timed.boost("shared", name="newer", results=True)
    def newer(number: int) -> list[int]:
        return [number, current.attempt]

    clock.advance(60)
    with timed.worker():
        assert Job(job.id, newer, True).get(timeout=10) == [4, 1]
    assert dead_letters(known) == []
