"""What the server answers to messages that were sent to it: one subscription for all of them, counted by batches."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header

Answer: TypeAlias = bytes | Exception | None
"""What came back: bytes, why nothing will come, or None for nothing so far."""

NOBODY: Final = "503"
"""The status of an answer that the server gives where nobody listens."""

_DENIED: Final = re.compile(r'permissions violation for publish to "(.+?)"')


class Denied(Exception):
    """The server forbids the user to publish to a subject, or to hear answers."""


class NobodyThere(Exception):
    """Nobody listens to a subject: no such stream or consumer, or JetStream is off."""


class Batch:
    """Messages that are sent together; ``done`` is done once each has its answer, or none is waited for any more."""

    def __init__(self, subjects: Sequence[str]) -> None:
        self.subjects = subjects
        self.sent = 0
        self.answers: list[Answer] = [None] * len(subjects)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = len(subjects)

    def answer(self, index: int, answer: Answer) -> None:
        """Take what came back for one message; the first answer counts."""
        if self.answers[index] is None:
            self.answers[index] = answer
            self._missing -= 1
            if not self._missing:
                self.end()

    def end(self) -> None:
        """Wait for no further answer."""
        if not self.done.done():
            self.done.set_result(None)


class Answers:
    """The batches that are under way. The subject of an answer ends in its batch's number and its message's index."""

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}
        self._numbers = itertools.count()
        self._inbox = ""

    async def listen(self, client: Client) -> None:
        """Hear answers over this connection from now on; nats-py goes on listening when it dials again."""
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.>", cb=self._take, pending_bytes_limit=0)

    def expect(self, batch: Batch) -> str:
        """Begin a batch; return what the subjects of its answers begin with."""
        number = str(next(self._numbers))
        self._batches[number] = batch
        return f"{self._inbox}.{number}."

    def forget(self, prefix: str) -> None:
        """End a batch; later answers to it are dropped."""
        self._batches.pop(prefix.split(".")[-2], None)

    def end_all(self) -> None:
        """Wait for nothing any more: the connection is lost."""
        for batch in self._batches.values():
            batch.end()

    def deny(self, error: Exception) -> bool:
        """Take an error that the server reported outside of answers: it says which permission is missing.

        Return whether it was about messages of a batch, whose sender then hears of it.
        """
        refused, heard = _DENIED.search(str(error)), False
        for batch in self._batches.values():
            for index, subject in enumerate(batch.subjects):
                if refused is None or subject.lower() == refused[1]:  # nats-py tells it in small letters
                    batch.answer(index, Denied(str(error).removeprefix("nats: ")))
                    heard = True
        return heard

    async def _take(self, message: Msg) -> None:
        number, _, index = message.subject.removeprefix(self._inbox + ".").partition(".")
        batch = self._batches.get(number)
        if batch is not None:
            nobody = message.headers is not None and message.headers.get(Header.STATUS) == NOBODY
            batch.answer(int(index), NobodyThere(batch.subjects[int(index)]) if nobody else message.data)
