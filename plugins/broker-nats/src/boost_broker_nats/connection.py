"""The connection to the server: dialled, dialled again, and never waited for without a deadline."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import nats.errors
from boost_core.plugin import BrokerUnavailable, Closed, ConnectionLost, mask_url
from nats.aio.client import Client
from nats.js.errors import APIError

from boost_broker_nats import trouble
from boost_broker_nats.answers import Answers, Batch, Denied, NobodyThere
from boost_broker_nats.login import login_settings
from boost_broker_nats.plugin import NatsOptions, split_urls

T = TypeVar("T")
Post = tuple[str, bytes, dict[str, str] | None]
"""Subject, body and headers of a message."""

log = logging.getLogger("boost.broker.nats")

ATTEMPTS: Final = 2
REDIAL_SECONDS: Final = 0.25
"""nats-py dials each server so often, with this pause between; then core's turn has come, or a publisher's."""

HANG_UP_SECONDS: Final = 1.0


class Connection:
    """One connection for all that a broker does. ``generation`` goes up with each loss.

    nats-py dials again by itself at first. Calls don't wait for it: they raise ``ConnectionLost`` while there is no
    connection, and ``ready`` is what waits for the next one, or dials where nats-py has given up.
    """

    def __init__(self, name: str, options: NatsOptions) -> None:
        self.name = name
        self.generation = 0
        self.on_loss: list[Callable[[], None]] = []
        self._options = options
        self._client: Client | None = None
        self._answers = Answers()
        self._up = False
        self._closed = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled = asyncio.Event()  # set while nats-py isn't dialling
        self._dialling = asyncio.Lock()
        self._last_error: Exception | None = None

    @property
    def where(self) -> str:
        """The addresses, fit for a log line."""
        return addresses(self._options)

    @property
    def version(self) -> tuple[int, int]:
        """The server's version."""
        version = self.client.connected_server_version
        return int(version.major), int(version.minor)

    @property
    def max_payload(self) -> int:
        """How many bytes the server takes in a message, headers included."""
        return int(self.client.max_payload)

    def after_fork(self) -> None:
        """In a forked child: close the socket, or the server would take a dead parent for a live one.

        Its number is taken by /dev/null: what the child forgets would else close another file under that number.
        """
        writer = getattr(self._client and self._client._transport, "_bare_io_writer", None)  # nats-py shows it nowhere
        if writer is not None:
            with suppress(OSError), open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
                os.dup2(nothing.fileno(), writer.get_extra_info("socket").fileno(), inheritable=False)

    @property
    def client(self) -> Client:
        """The client, where there is a connection. Raises ``ConnectionLost``."""
        if self._client is None or not self._up:
            if self._closed:
                raise Closed(f"broker {self.name!r}")
            raise ConnectionLost(self.name, f"the connection is lost ({self.where})")
        return self._client

    @property
    def up(self) -> bool:
        """Tell whether there is a connection."""
        return self._up

    # --- calls --------------------------------------------------------------------------------------

    async def bounded(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Return what ``work`` returns; raise ``ConnectionLost`` past the deadline or when the connection is lost."""
        seconds = self._options.timeout if timeout is None else timeout
        task = asyncio.ensure_future(work)
        lost, either = self._lost, set[asyncio.Future[Any]]()
        either |= {task, lost}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()  # not awaited: nats-py swallows that while it waits for a full socket
        if not task.done():
            problem = "the connection was lost" if lost.done() else f"no answer within {seconds:g} s"
            raise ConnectionLost(self.name, f"{problem} ({self.where})")
        try:
            return task.result()
        except APIError:
            raise
        except (OSError, nats.errors.Error) as error:
            raise ConnectionLost(self.name, f"the connection broke ({self.where}): {error}") from error

    async def post(self, posts: Sequence[Post], timeout: float | None = None) -> Batch:
        """Send messages in one go and return the batch with what was answered to each, at the latest past the deadline.

        The messages beyond ``sent`` never left; those without an answer may have arrived or not.
        """
        seconds = self._options.timeout if timeout is None else timeout
        client, batch = self.client, Batch([subject for subject, _, _ in posts])
        inbox = self._answers.expect(batch)
        timer = asyncio.get_running_loop().call_later(seconds, batch.end)
        try:
            async with asyncio.timeout(seconds):
                await self._send(client, posts, batch, inbox)
        except (TimeoutError, OSError, nats.errors.Error) as error:
            log.debug("%s: after %d messages of %d: %r", self.where, batch.sent, len(posts), error)
        finally:
            timer.cancel()
            self._answers.forget(inbox)
        return batch

    async def _send(self, client: Client, posts: Sequence[Post], batch: Batch, inbox: str) -> None:
        for index, (subject, body, headers) in enumerate(posts):
            if batch.done.done():  # nats-py swallows what would end its wait for a full socket
                return
            batch.sent = index + 1
            await client.publish(subject, body, f"{inbox}{index}", headers)
        await batch.done

    async def api(self, verb: str, **request: Any) -> dict[str, Any]:
        """Ask JetStream for something and return the answer.

        Raises nats-py's ``APIError`` for what it refuses, ``BrokerUnavailable`` where it can't be asked.
        """
        batch = await self.post([(f"$JS.API.{verb}", json.dumps(request).encode() if request else b"", None)])
        answer = batch.answers[0]
        if answer is None:
            raise ConnectionLost(self.name, f"no answer to {verb} ({self.where})")
        self._check_allowed(batch)
        if isinstance(answer, NobodyThere):
            raise BrokerUnavailable(self.name, f"JetStream is off ({self.where})", trouble.NO_JETSTREAM)
        assert isinstance(answer, bytes)
        told: dict[str, Any] = json.loads(answer)
        if "error" in told:
            APIError.from_error(told["error"])  # raises the class for its code
        return told

    async def tell(self, messages: Sequence[Post]) -> None:
        """Send messages that nobody answers, and return once the server has read them.

        Raises ``BrokerUnavailable`` where it forbids one of them: it says so before it ends the flush.
        """
        client, batch = self.client, Batch([subject for subject, _, _ in messages])
        inbox = self._answers.expect(batch)

        async def send() -> None:
            for subject, body, headers in messages:
                await client.publish(subject, body, headers=headers)
            await client._flush_pending(force_flush=True)  # nats-py's ping would overtake what waits to be written
            await client.flush()

        try:
            await self.bounded(send())
        except ConnectionLost as error:
            await client.force_reconnect()  # it may be alive, and deaf: nats-py alone would find out later
            raise ConnectionLost(self.name, f"the server didn't confirm what it was told ({self.where})") from error
        finally:
            self._answers.forget(inbox)
        self._check_allowed(batch)

    def _check_allowed(self, batch: Batch) -> None:
        denied = next((answer for answer in batch.answers if isinstance(answer, Denied)), None)
        if denied is not None:
            fix = trouble.NEEDED.format(inbox=self._options.inbox)
            raise BrokerUnavailable(self.name, f"the server forbids it: {denied}", fix)

    # --- dialling -------------------------------------------------------------------------------------

    async def ready(self, timeout: float | None = None) -> None:
        """Return once there is a connection; raise ``BrokerUnavailable`` where there is none within ``timeout``."""
        if self._up:
            return
        seconds = self._options.timeout if timeout is None else timeout
        self._last_error = None
        try:
            async with asyncio.timeout(seconds), self._dialling:
                await self._settled.wait()
                if not self._up:
                    await self._dial(seconds)
        except TimeoutError as error:
            if seconds >= self._options.timeout:
                await self._give_up()
            raise trouble.explain(self.name, self.where, self._cause(error), seconds) from error

    async def _give_up(self) -> None:
        """Let nats-py dial no more, which has had its time; the next call does it anew."""
        client, self._client = self._client, None
        if client is not None:
            await _hang_up(client)
        self._settled.set()

    async def open(self) -> None:
        """Dial for the first time."""
        self._settled.set()
        await self.ready()

    async def close(self) -> None:
        """Hang up."""
        self._closed = True
        await self._give_up()

    async def _dial(self, timeout: float) -> None:
        if self._closed:
            raise Closed(f"broker {self.name!r}")
        client, dialler = Client(), asyncio.current_task()

        async def heard(error: Exception) -> None:
            self._heard(error)
            if trouble.is_final(error) and asyncio.current_task() is dialler:  # else nats-py dials by itself
                raise error

        try:
            await client.connect(**self._settings(client, timeout), error_cb=heard)
            await self._answers.listen(client)
        except Exception as error:  # whatever nats-py and the libraries below it raise
            raise trouble.explain(self.name, self.where, self._cause(error), timeout) from error
        else:
            self._client = client
            self._found()
        finally:
            if self._client is not client:
                await _hang_up(client)

    def _cause(self, error: Exception) -> Exception:
        """Return what nats-py reported before it gave up or the time was over: its last error says nothing."""
        vague = isinstance(error, (TimeoutError, nats.errors.NoServersError))
        return self._last_error if vague and self._last_error is not None else error

    def _settings(self, client: Client, timeout: float) -> dict[str, Any]:
        options = self._options
        return {
            **login_settings(options, client),
            "name": f"boost {self.name}",
            "inbox_prefix": options.inbox,
            "connect_timeout": timeout / (len(split_urls(options.url)) + 1),
            "max_reconnect_attempts": ATTEMPTS,
            "reconnect_time_wait": REDIAL_SECONDS,
            "ping_interval": min(options.timeout, options.lease) / 3,
            "disconnected_cb": self._on_loss,
            "reconnected_cb": self._on_return,
            "closed_cb": self._on_end,
        }

    def _heard(self, error: Exception) -> None:
        if "permissions violation" in str(error):
            if not self._answers.deny(error):
                log.error("%s refuses: %s", self.where, error)
        else:
            log.debug("%s: %s: %s", self.where, type(error).__name__, error)
            self._last_error = error

    def _found(self) -> None:
        self._up = True
        self._lost = asyncio.get_running_loop().create_future()
        self._settled.set()

    async def _on_loss(self) -> None:
        if self._up:
            self._up = False
            self.generation += 1
            self._settled.clear()
            self._lost.set_result(None)
            self._answers.end_all()
            for tell in self.on_loss:
                tell()

    async def _on_return(self) -> None:
        self._found()

    async def _on_end(self) -> None:
        self._settled.set()


def addresses(options: NatsOptions) -> str:
    """Return where the servers are, without logins, fit for a log line."""
    return ", ".join(mask_url(url) for url in split_urls(options.url))


async def _hang_up(client: Client) -> None:
    """Close a client that is given up. Nothing that is said about it matters.

    Waited for from outside: where nats-py is dialling, its end can come as the ``CancelledError`` of a task of its own.
    """
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait([closing], timeout=HANG_UP_SECONDS)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled():
        closing.exception()
