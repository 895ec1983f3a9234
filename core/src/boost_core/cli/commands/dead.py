"""``boost dead``: messages that ended without success, and why."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from boost_core.app.app import App
from boost_core.bridge.envelope import Opener, open_dead
from boost_core.cli.broker import opened_broker, project, queue_name
from boost_core.cli.output import output_option, show_each, show_rows
from boost_core.contracts.codec import Codec
from boost_core.errors import DecodeError
from boost_core.names import DEAD_SUFFIX
from boost_core.types import MICROSECONDS, DeadLetter

if TYPE_CHECKING:
    from boost_core.contracts.broker import SyncBroker
    from boost_core.types import Frame

_SEARCHED: Final = 10_000
_FIRST_LOOK: Final = 1000
"""A search looks at so many a queue first, and at ten times as many each time that it finds nothing."""


@click.group()
def dead() -> None:
    """See dead letters: messages that ended without success."""


@dead.command("list")
@click.argument("queue", required=False)
@click.option("--broker", help="Broker: a name or a URL; the project's own unless given.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many a queue."
)
@output_option
def list_dead(queue: str | None, broker: str | None, limit: int, output: str) -> None:
    """List dead letters of QUEUE (with its namespace or without), or of all queues that the broker knows."""
    rows = [_row(letter) for letter in _letters(project(broker), queue, limit)]
    show_rows(rows, ("id", "queue", "task", "reason", "attempt", "died", "error"), output, "no dead letters")


@dead.command("show")
@click.argument("job_id")
@click.option("--queue", help="Look only here.")
@click.option("--broker", help="Broker: a name or a URL; the project's own unless given.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=_SEARCHED,
    show_default=True,
    help="Look at most at so many a queue.",
)
@output_option
def show_dead(job_id: str, queue: str | None, broker: str | None, limit: int, output: str) -> None:
    """Show one dead letter whole: its attempts, traceback and original arguments. An id may be shortened."""
    app = project(broker)
    opened, found, more = opened_broker(app), list[DeadLetter](), list[str]()
    for name in _dead_queues(app, opened, queue):
        frames, whole = _search(opened, name, job_id, limit)
        found += [_letter(frame.id, name, frame.body, app.services.codec) for frame in frames]
        more += [] if whole else [name]
    if not found:
        among = f" among the first {limit:,} of {', '.join(more)}; search further by --limit" if more else ""
        raise click.ClickException(f"no dead letter has an id that starts with {job_id!r}{among}")
    show_each([_facts(letter) for letter in found], output)


def _search(broker: SyncBroker, name: str, job_id: str, limit: int) -> tuple[list[Frame], bool]:
    """Return the dead letters of a queue whose ids start so, and whether none is left that wasn't looked at.

    Brokers show a queue from its front only: to look further is to look again.
    """
    size = min(_FIRST_LOOK, limit)
    while True:
        frames = broker.peek(name, size)
        found, whole = [frame for frame in frames if frame.id.startswith(job_id)], len(frames) < size
        if found or whole or size == limit:
            return found, whole
        size = min(10 * size, limit)


def _letters(app: App, queue: str | None, limit: int) -> Iterator[DeadLetter]:
    broker = opened_broker(app)
    for name in _dead_queues(app, broker, queue):
        for frame in broker.peek(name, limit):
            yield _letter(frame.id, name, frame.body, app.services.codec)


def _dead_queues(app: App, broker: SyncBroker, queue: str | None) -> list[str]:
    if queue:
        return [f"{queue_name(app, queue)}{DEAD_SUFFIX}"]
    return [name for name in broker.queues() if name.endswith(DEAD_SUFFIX)]


def _letter(frame_id: str, name: str, body: bytes | memoryview, codec_of: Callable[[str], Codec]) -> DeadLetter:
    try:
        return open_dead(body, codec_of)
    except DecodeError as error:
        queue = name.removesuffix(DEAD_SUFFIX)
        return DeadLetter(v=0, id=frame_id, queue=queue, at=0, reason="unreadable", error=str(error), body=bytes(body))


def _row(letter: DeadLetter) -> dict[str, Any]:
    error = (letter.error or "").splitlines()
    return {
        "id": letter.id,
        "queue": letter.queue,
        "task": letter.task,
        "reason": letter.reason,
        "attempt": letter.attempt,
        "died": _when(letter.at),
        "error": error[0][:80] if error else None,
    }


def _facts(letter: DeadLetter) -> dict[str, Any]:
    attempts = [f"{_when(f.at)}  attempt {f.attempt}  {f.type}: {f.message}" for f in letter.failures]
    return {
        **_row(letter),
        "error": letter.error,
        "attempts": "\n".join(attempts) or None,
        "arguments": _arguments(letter),
        "traceback": letter.traceback,
    }


def _arguments(letter: DeadLetter) -> str:
    try:
        message = Opener(App("command").services.codec).open(letter.body)
    except DecodeError as error:
        return f"unreadable ({error}): {letter.body[:200]!r}"
    return f"{bytes(message.args).decode(errors='replace')} {bytes(message.kwargs).decode(errors='replace')}"


def _when(at: int) -> str:
    moment = datetime.datetime.fromtimestamp(at / MICROSECONDS, tz=datetime.UTC)
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")
