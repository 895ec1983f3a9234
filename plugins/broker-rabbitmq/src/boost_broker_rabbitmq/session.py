"""A connection for publishing, and for asking the server things."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import amqp
import attrs
from amqp import spec
from amqp.exceptions import AccessRefused, ChannelError, NotFound
from amqp.serialization import decode_properties_basic, dumps

from boost_broker_rabbitmq.connection import Channel, Connection
from boost_broker_rabbitmq.diagnosis import forbidden, reason_of
from boost_broker_rabbitmq.wire import CHUNK

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0
"""After so long a connection is asked for a sign of life before it is relied on."""

_LIFE_SECONDS: Final = 2.0
_PROPERTIES_AT: Final = 12
_MANDATORY: Final = True
_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than configured max size (\d+)")


@attrs.define(eq=False)
class Posting:
    """A message on its way: to the queue ``key`` (as on the server), with AMQP's properties."""

    key: str
    body: bytes | memoryview
    properties: Mapping[str, Any]


@attrs.define(eq=False)
class Answer:
    """What became of a batch, by index: what surely isn't stored and why, and what nobody can tell of."""

    failed: dict[int, str] = attrs.Factory(dict)
    unsure: dict[int, str] = attrs.Factory(dict)
    homeless: set[int] = attrs.Factory(set)
    """Those of ``failed`` whose queue doesn't exist."""

    def take(self, part: Answer, places: Sequence[int]) -> None:
        """Add what became of a part of the batch; ``places`` are its messages' indexes."""
        self.failed.update((places[number], problem) for number, problem in part.failed.items())
        self.unsure.update((places[number], problem) for number, problem in part.unsure.items())
        self.homeless.update(places[number] for number in part.homeless)


class Session:
    """Used by one thread at a time. ``usable`` is False once its connection can't be relied on any more."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.usable = True
        self._used = time.monotonic()
        self._confirming: Channel | None = None
        self._asking: Channel | None = None
        self._published = 0
        self._open: dict[int, int] = {}  # number on the channel -> index in the batch, of what isn't confirmed
        self._sent = 0  # how many of the batch may have reached the server
        self._answer = Answer()

    # --- asking ------------------------------------------------------------------------------------

    def ask(self, question: Callable[[Channel], T], until: float) -> T:
        """Return the answer to a question. Raises ``ChannelError`` where the server refuses; that leaves us usable."""
        self.connection.wire.until = until
        try:
            if self._asking is None:
                self._asking = self.connection.new_channel()
            return question(self._asking)
        except ChannelError:
            self._asking = None
            raise
        except BaseException:
            self.usable = False
            raise
        finally:
            self._used = time.monotonic()

    def seek(self, question: Callable[[Channel], T], until: float) -> T | None:
        """Return the answer to a question about a queue; None where there is no queue."""
        try:
            return self.ask(question, until)
        except NotFound:
            return None

    def lives(self, until: float) -> bool:
        """Return whether the connection still works, as far as can be told; asks the server after a long rest."""
        try:
            while self.connection.read_all():
                pass
            if self.connection.blocked is None and time.monotonic() - self._used > IDLE_SECONDS:
                self.ask(lambda channel: channel.basic_qos(0, 1, False), min(until, time.monotonic() + _LIFE_SECONDS))
        except (OSError, amqp.AMQPError):
            self.usable = False
        return self.usable and bool(self.connection.connected)

    # --- publishing ----------------------------------------------------------------------------------

    def publish(self, postings: Sequence[Posting], until: float) -> Answer:
        """Publish a batch and wait for the server's word on each message. Never raises for what the server does."""
        self._answer = answer = Answer()
        self._open.clear()
        self._sent = 0
        self.connection.wire.until = until
        try:
            if self._awaits_room():
                self._write(postings)
                self._await_confirms()
            else:
                self._give_up(postings, self._alarm())
        except ChannelError as error:
            self._after_refusal(error, postings)
        except TimeoutError:
            self._after_silence(postings)
        except (OSError, amqp.AMQPError) as error:
            self.usable = False
            self._give_up(postings, f"the connection was lost: {reason_of(error)}")
        self._open.clear()
        self._used = time.monotonic()
        return answer

    def _awaits_room(self) -> bool:
        """Wait while the server takes nothing; return whether it does. So nothing is sent that may be stored later."""
        try:
            while self.connection.blocked is not None:
                self.connection.drain_events()
        except TimeoutError:
            return False
        return True

    def _alarm(self) -> str:
        return f"the server takes no messages: {self.connection.blocked} (memory or disk alarm)"

    def _write(self, postings: Sequence[Posting]) -> None:
        channel = self._confirming or self._confirm()
        wire, write = self.connection.wire, self.connection.frame_writer
        wire.corked = True
        try:
            for index, posting in enumerate(postings):
                self._published += 1
                self._open[self._published] = index
                message = amqp.Message(posting.body, correlation_id=str(self._published), **posting.properties)
                method = dumps("Bssbb", (0, "", posting.key, _MANDATORY, False))
                write(1, channel.channel_id, spec.Basic.Publish, method, message)
                if wire.pending > CHUNK or index == len(postings) - 1:
                    self._sent = index + 1  # the server may have them from here on, whatever happens next
                    wire.flush()
        finally:
            wire.corked = False

    def _confirm(self) -> Channel:
        channel = self.connection.new_channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._acked)
        channel.events["basic_nack"].add(self._nacked)
        channel.on_return = self._returned
        self._confirming, self._published = channel, 0
        return channel

    def _await_confirms(self) -> None:
        while self._open:
            self.connection.drain_events()

    def _acked(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - called by py-amqp
        for number in self._meant(tag, multiple=multiple):
            self._open.pop(number, None)

    def _nacked(self, tag: int, multiple: bool) -> None:  # noqa: FBT001
        for number in self._meant(tag, multiple=multiple):
            index = self._open.pop(number, None)
            if index is not None:
                self._answer.failed[index] = "the server refused it (basic.nack): its queue is full or out of order"

    def _meant(self, tag: int, *, multiple: bool) -> list[int]:
        return list(itertools.takewhile(tag.__ge__, self._open)) if multiple else [tag]

    def _returned(self, _arguments: bytes, header: bytes, _body: bytes) -> None:
        properties, _ = decode_properties_basic(header, _PROPERTIES_AT)
        index = self._open.get(int(properties["correlation_id"]))
        if index is not None:
            self._answer.failed[index] = "its queue doesn't exist"
            self._answer.homeless.add(index)

    # --- what went wrong -------------------------------------------------------------------------------

    def _give_up(self, postings: Sequence[Posting], problem: str) -> None:
        """Take what isn't confirmed as unsure, and what never left as failed."""
        failed = self._answer.failed
        self._answer.unsure.update((index, problem) for index in self._open.values() if index not in failed)
        failed.update((index, problem) for index in range(self._sent, len(postings)))

    def _after_refusal(self, error: ChannelError, postings: Sequence[Posting]) -> None:
        """Tell which message the server closed the channel for: it and those after it aren't stored."""
        self._confirming = None
        text = reason_of(error)
        found = _TOO_LARGE.search(text)
        if isinstance(error, AccessRefused):
            problem, offender = forbidden(error, "write to").problem, 0
        elif found is not None:
            problem, largest = text.partition(" - ")[2], int(found[1])
            offender = next(index for index, posting in enumerate(postings) if len(posting.body) > largest)
        else:
            problem, offender = f"the server refused it: {text}", len(postings)
        self._answer.failed.update((index, problem) for index in self._open.values() if index >= offender)
        self._give_up(postings, problem)

    def _after_silence(self, postings: Sequence[Posting]) -> None:
        with contextlib.suppress(OSError, amqp.AMQPError):
            self.connection.read_all()  # a write that blocked hasn't seen why
        blocked = self.connection.blocked is not None
        self.usable = blocked and not self.connection.wire.torn  # what hangs is left, an alarm passes
        self._give_up(postings, self._alarm() if blocked else "the server didn't confirm in time")
