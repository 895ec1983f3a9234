"""The queues on the server: made as they should be, compared with what is there, counted and emptied."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from amqp.exceptions import AccessRefused, PreconditionFailed, ResourceLocked
from boost_core.plugin import BrokerUnavailable, QueueKind, QueueSpec

from boost_broker_rabbitmq import marker
from boost_broker_rabbitmq.connection import Channel
from boost_broker_rabbitmq.diagnosis import NAME, forbidden, reason_of
from boost_broker_rabbitmq.names import is_shortened, server_name, step_name
from boost_broker_rabbitmq.plugin import RabbitOptions
from boost_broker_rabbitmq.session import Session

log = logging.getLogger("boost.rabbitmq")

NO_LIMIT: Final = 1_000_000_000
"""How often a message of a quorum queue may come back before the server drops it.

Not -1, or none at all: without a limit the server puts what is given back at the queue's end, with one to its head.
"""

DROPS_FROM: Final = (4, 0)
"""The first version whose quorum queues drop messages after 20 returns where they were made without a limit."""

MARGIN_SECONDS: Final = 3600
"""How long a queue of the delay ladder outlives the last message that may have been put there."""

SETTLED_SECONDS: Final = 2.0
"""How long after a quorum queue was made a server that is killed may have lost it, with all that it confirmed.

It writes its list of them lazily, when that hasn't changed for half a second (Ra's ``names.dets``); queues were lost up
to 1.3 s after they were made.
"""

_LIMIT: Final = "x-delivery-limit"
_DIFFERENCE: Final = re.compile(r"inequivalent arg '([^']+)' for .*: received (.+) but current is (.+)", re.DOTALL)
_TYPED: Final = re.compile(r"the value '(.*)' of type '(\w+)'", re.DOTALL)
_MOST_DIFFERENCES: Final = 20

Arguments = dict[str, Any]
"""Arguments of queue.declare as RabbitMQ names them, with ``durable``, ``exclusive`` and ``auto_delete`` beside."""


def work_arguments(spec: QueueSpec, options: RabbitOptions) -> Arguments:
    """Return how a queue should be."""
    arguments: Arguments = {"durable": True, "x-queue-type": options.queue_type}
    if options.queue_type == "quorum":
        arguments[_LIMIT] = NO_LIMIT
    if options.queue_type == "classic" and options.priorities > 1 and spec.kind is QueueKind.WORK:
        arguments["x-max-priority"] = options.priorities - 1
    if is_shortened(spec.name):
        arguments["x-boost-queue"] = spec.name
    return arguments


def step_arguments(queue: str, seconds: int) -> Arguments:
    """Return how a queue of the ladder should be: it holds messages for so long, and passes them on surely.

    That takes a quorum queue, also where the work queue is classic: the others pass on at most once.
    """
    return {
        "durable": True,
        "x-queue-type": "quorum",
        "x-message-ttl": seconds * 1000,
        "x-expires": (seconds + MARGIN_SECONDS) * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


class Queues:
    """Makes queues. One object a broker; each call works on a lent session."""

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._since: dict[str, float] = {}
        """Since when a quorum queue is there at the latest (monotonic), as far as this process can tell."""

    def declare(self, session: Session, spec: QueueSpec, until: float) -> None:
        """Make a queue exist as it should be. Raises ``BrokerUnavailable`` naming whatever is in the way."""
        arguments = work_arguments(spec, self._options)
        is_work = spec.kind is QueueKind.WORK
        self._make(session, spec.name, server_name(spec.name), arguments, until, follows_options=is_work)

    def declare_step(self, session: Session, queue: str, seconds: int, until: float) -> None:
        """Make a queue of the delay ladder exist; ``queue`` as on the server."""
        name = step_name(queue, seconds)
        self._make(session, name, name, step_arguments(queue, seconds), until, follows_options=False)

    def _make(
        self, session: Session, queue: str, name: str, arguments: Arguments, until: float, *, follows_options: bool
    ) -> None:
        quorum, exists = arguments["x-queue-type"] == "quorum", False
        try:
            exists = self.count(session, name, until) is not None
            if quorum and not exists:
                marker.leave(session, name, until)
            found = _differences(session, name, arguments, until)
            if quorum and not exists:
                marker.leave(session, name, until)
        except AccessRefused as error:
            if not exists:
                raise forbidden(error, "configure") from error
            found = {}  # who may not make queues takes them as they are
        except ResourceLocked as error:
            problem = f"queue {queue!r} exists and belongs to another connection alone (exclusive)"
            raise BrokerUnavailable(NAME, problem, "Give the task another queue.") from error
        except PreconditionFailed as error:
            problem = f"queue {queue!r} can't be made: {reason_of(error)}"
            raise BrokerUnavailable(NAME, problem, "See the server's policies and log.") from error
        if quorum and not (exists and name in self._since):
            old = exists and not marker.is_there(session, name, until)
            self._since[name] = -math.inf if old else time.monotonic()
        if list(found) == [_LIMIT] and found[_LIMIT][1] is None:
            self._bear_no_limit(queue, name, session.connection.version)
        elif found:
            lines = [f"{argument}: {theirs!r} there, {ours!r} wanted" for argument, (ours, theirs) in found.items()]
            problem = f"queue {queue!r} exists with other arguments:\n    " + "\n    ".join(lines)
            raise BrokerUnavailable(NAME, problem, _remedy(name, found, self._options if follows_options else None))

    def _bear_no_limit(self, queue: str, name: str, version: tuple[int, ...]) -> None:
        """Take a queue that others made without a limit of returns: what is given back goes to its end."""
        if version >= DROPS_FROM:
            log.warning(
                "queue %r was made without x-delivery-limit: this server drops a message that was given back 20 times."
                " Set a policy: rabbitmqctl set_policy boost '^%s$' '{\"delivery-limit\":-1}' --apply-to queues",
                *(queue, re.escape(name)),
            )

    def seconds_to_settle(self, names: Iterable[str]) -> float:
        """Return how long until the server surely keeps all of these, by their names there, that were declared here."""
        since = max((self._since.get(name, -math.inf) for name in names), default=-math.inf)
        return max(0.0, since + SETTLED_SECONDS - time.monotonic())

    # --- what is there -----------------------------------------------------------------------------------

    def count(self, session: Session, name: str, until: float) -> int | None:
        """Return how many messages are ready in a queue, by its name on the server; None where there is no queue."""
        return session.seek(lambda channel: int(channel.queue_declare(name, passive=True).message_count), until)

    def purge(self, session: Session, name: str, until: float) -> int:
        """Remove what is ready in a queue, by its name on the server; return how many."""
        try:
            return session.seek(lambda channel: int(channel.queue_purge(name)), until) or 0
        except AccessRefused as error:
            raise forbidden(error, "read") from error


def _differences(session: Session, name: str, wanted: Arguments, until: float) -> dict[str, tuple[Any, Any]]:
    """Make a queue, or return in what it differs from what is wanted: argument -> (ours, theirs).

    The server names one difference at a time; so what it names is taken over, and it is asked again.
    """
    arguments, found = dict(wanted), dict[str, tuple[Any, Any]]()
    for _ in range(_MOST_DIFFERENCES):
        try:
            session.ask(lambda channel: _declare(channel, name, arguments), until)
        except PreconditionFailed as error:
            said = _DIFFERENCE.search(reason_of(error))
            if said is None or said[1] in found:
                raise
            ours = arguments.pop(said[1], None)
            theirs = _value(said[3], ours)
            found[said[1]] = (ours, theirs)
            if theirs is not None:
                arguments[said[1]] = theirs
        else:
            break
    return found


def _declare(channel: Channel, name: str, arguments: Arguments) -> None:
    plain = {key: value for key, value in arguments.items() if key.startswith("x-")}
    flags = {key: bool(arguments.get(key)) for key in ("durable", "exclusive", "auto_delete")}
    channel.queue_declare(name, **flags, arguments=plain)


def _value(text: str, ours: Any) -> Any:
    """Return a value from how the server writes it: none, with its type, or bare where it is of our type."""
    if text == "none":
        return None
    typed = _TYPED.fullmatch(text)
    if typed is None:
        bare = text.strip("'")
        return bare == "true" if bare in ("true", "false") else type(ours)(bare) if ours is not None else bare
    if typed[2] == "bool":
        return typed[1] == "true"
    return typed[1] if typed[2] in ("longstr", "binary") else int(typed[1])


def _remedy(name: str, found: Mapping[str, tuple[Any, Any]], options: RabbitOptions | None) -> str:
    """Return what to do about a queue that differs; without ``options`` none of them would change what is wanted."""
    delete = f"Delete the queue once it is empty (rabbitmqctl delete_queue {name!r}), or give the task another queue"
    if options is None:
        return f"{delete}."
    kind = found["x-queue-type"][1] or "classic" if "x-queue-type" in found else options.queue_type
    theirs = found["x-max-priority"][1] if "x-max-priority" in found else None
    rest = found.keys() - {"x-queue-type", "x-max-priority", _LIMIT}
    if rest or kind not in ("classic", "quorum") or theirs == 0 or (_LIMIT in found and found[_LIMIT][1] is not None):
        return f"{delete}."
    asks = [f'queue_type="{kind}"'] if kind != options.queue_type else []
    if kind == "classic" and ("x-max-priority" in found or asks):
        asks.append(f"priorities={(theirs or 0) + 1}")
    return f"Take it as it is with the broker's options {', '.join(asks)}. Or: {delete[0].lower()}{delete[1:]}."
