"""The servers' side of queues: topics made and looked at, messages counted and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import attrs
from boost_core.plugin import BrokerUnavailable
from boost_core.plugin.native import Lock, sleep
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from boost_broker_kafka.config import client_config
from boost_broker_kafka.plugin import KafkaOptions
from boost_broker_kafka.trouble import Trouble

K = TypeVar("K")

Partition = tuple[str, int]
"""Topic and number."""

NOT_YET: Final = frozenset(
    {
        *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR),
        *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION),
        *(KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH),
    }
)
"""Answers for a topic or a group whose server has just started, or took it over a moment ago."""

_NO_ID: Final = str(Uuid(0, 0))
_NOT_SEEN: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)

FRESH_SECONDS: Final = 30.0
"""So long a topic is taken to have as many partitions as it had."""

_FIRST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_NEXT: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_FIRST_LOOK, _LONGEST_LOOK = 0.001, 0.02

_ANY_TOPIC: Final = "boost"
"""A topic to ask for where any answer will do, also that there is none.

Who asks for no topic at all, as ``describe_cluster`` does, is aborted by librdkafka (2.16.1) where the answer has no
server in it either: so answers one that hung for so long that its controller gave it up.
"""


@attrs.frozen
class Topic:
    """How many partitions a topic has, 0 while one of them has no leader, and what tells it from a former one.

    That is its id; "" where the server is older than such ids.
    """

    partitions: int
    log: str


@attrs.frozen
class Span:
    """What a partition holds: from which offset to which, and what the group committed of it."""

    start: int
    end: int
    committed: int = 0
    metadata: str = ""


class Cluster:
    """Asks the servers through one admin client, made at first use. Any thread."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._trouble = Trouble(options)
        self._lock = Lock()
        self._client: AdminClient | None = None
        self._asker: Consumer | None = None
        self._counts: dict[str, tuple[int, float]] = {}
        self._asked: dict[str, Future[Any]] = {}

    @property
    def client(self) -> AdminClient:
        """The admin client."""
        with self._lock:
            if self._client is None:
                config: dict[str, Any] = {**client_config(self._options), "error_cb": self._trouble.hear}
                self._client = AdminClient(config)
            return self._client

    @property
    def asker(self) -> Consumer:
        """A consumer that never joins the group: it reads what that has committed.

        The admin client has a call for it, which now and then crashes the process (confluent-kafka 2.16.1).
        """
        with self._lock:
            if self._asker is None:
                self._asker = Consumer({**client_config(self._options), "group.id": self._options.group})
            return self._asker

    def close(self) -> None:
        """Let go of the clients."""
        for client in self.let_go():
            if isinstance(client, Consumer):
                client.close()

    def let_go(self) -> list[Any]:
        """Return the clients to whom it may concern, and have none any more."""
        with self._lock:
            clients = [client for client in (self._client, self._asker) if client is not None]
            self._client = self._asker = None
            return clients

    def probe(self, timeout: float) -> None:
        """Return once a server has answered. Raises ``BrokerUnavailable``: at once where waiting is of no use.

        The next one dials anew then: a client whose last server knew of none may look for none for minutes.
        """
        try:
            self._hear_any(timeout)
        except BrokerUnavailable:
            with self._lock:
                self._client = None
            raise
        self._trouble.over()

    def _hear_any(self, timeout: float) -> None:
        deadline, client = time.monotonic() + timeout, self.client
        client.poll(0)
        self._trouble.forget()
        (answer,) = self.ask_for([_ANY_TOPIC], timeout).values()
        while not answer.done():
            client.poll(0)  # hears what goes wrong
            if self._trouble.hopeless or time.monotonic() > deadline:
                raise self._trouble.unavailable()
            sleep(_LONGEST_LOOK)
        outcome = _outcome(answer)
        if isinstance(outcome, KafkaError) and outcome.code() < 0:  # librdkafka's own: no server said it
            raise self._trouble.unavailable()

    # --- topics ------------------------------------------------------------------------------------

    def describe(self, topics: Sequence[str], timeout: float | None = None) -> dict[str, Topic | KafkaError]:
        """Return what topics are, or what is wrong with them."""
        return self.described(self.ask_for(topics, timeout), timeout)

    def ask_for(self, topics: Sequence[str], timeout: float | None = None) -> dict[str, Future[Any]]:
        """Ask what topics are; the answers come by themselves, and are for ``described``."""
        if not topics:  # see _ANY_TOPIC
            return {}
        seconds = self._options.timeout if timeout is None else timeout
        return self.client.describe_topics(TopicCollection(list(topics)), request_timeout=seconds)

    def described(
        self, asked: Mapping[str, Future[Any]], timeout: float | None = None
    ) -> dict[str, Topic | KafkaError]:
        """Return the answers, as ``outcomes`` does."""
        found = {
            topic: one if isinstance(one, KafkaError) else _topic(one)
            for topic, one in self.outcomes(asked, timeout).items()
        }
        now = time.monotonic()
        self._counts |= {
            topic: (one.partitions, now) for topic, one in found.items() if isinstance(one, Topic) and one.partitions
        }
        return found

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, as far as is known: 0 where it isn't. Asks again, but never waits."""
        if self._asked:
            self._hear_described()
        count, when = self._counts.get(topic, (0, 0.0))
        if time.monotonic() - when > FRESH_SECONDS and topic not in self._asked:
            self._asked |= self.ask_for([topic])
        return count

    def _hear_described(self) -> None:
        for topic, future in list(self._asked.items()):
            if future.done():
                self.described({topic: future})
                self._asked.pop(topic, None)

    def logs(self, topics: Iterable[str]) -> dict[str, str]:
        """Return what tells topics from former ones of their names, "" where none is to be seen.

        Raises ``KafkaException`` where the servers can't tell yet.
        """
        found: dict[str, str] = {}
        for topic, one in self.describe(list(topics)).items():
            if isinstance(one, KafkaError) and one.code() not in _NOT_SEEN:
                raise KafkaException(one)
            found[topic] = one.log if isinstance(one, Topic) else ""
        return found

    def settings(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the settings of topics, as far as this user may know them."""
        asked = self.client.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=self._options.timeout
        )
        found = self.outcomes({resource.name: future for resource, future in asked.items()})
        return {
            topic: {name: entry.value for name, entry in entries.items()}
            for topic, entries in found.items()
            if not isinstance(entries, KafkaError)
        }

    def copies(self, topics: Sequence[str]) -> dict[str, int]:
        """Return in how many copies topics are kept, as far as this user may know them."""
        return {
            topic: min(len(one.replicas) for one in found.partitions)
            for topic, found in self.outcomes(self.ask_for(topics)).items()
            if not isinstance(found, KafkaError)
        }

    def servers(self) -> int:
        """Return how many servers there are."""
        try:
            return len(self.client.list_topics(timeout=self._options.timeout).brokers)
        except KafkaException as error:
            raise BrokerUnavailable("kafka", error.args[0].str()) from None

    # --- messages ----------------------------------------------------------------------------------

    def spans(self, partitions: Iterable[Partition], deadline: float) -> dict[Partition, Span]:
        """Return what partitions hold and what is committed of them. Raises ``BrokerUnavailable``."""
        wanted = [TopicPartition(*partition) for partition in partitions]
        while True:
            starts, ends, committed = self._ask_spans(wanted, deadline)
            answers = [*starts.values(), *ends.values(), *committed]
            error = next((answer for answer in answers if isinstance(answer, KafkaError)), None)
            if error is None:
                break
            if error.code() not in NOT_YET or time.monotonic() > deadline:
                raise BrokerUnavailable("kafka", error.str())
            sleep(_LONGEST_LOOK)
        return {
            (one.topic, one.partition): Span(
                starts[one].offset, ends[one].offset, max(0, one.offset), one.metadata or ""
            )
            for one in committed
        }

    def _ask_spans(
        self, wanted: list[TopicPartition], deadline: float
    ) -> tuple[dict[TopicPartition, Any], dict[TopicPartition, Any], list[Any]]:
        timeout = left_until(deadline)
        starts = self.client.list_offsets(dict.fromkeys(wanted, _FIRST), request_timeout=timeout)
        ends = self.client.list_offsets(dict.fromkeys(wanted, _NEXT), request_timeout=timeout)
        try:
            committed: list[Any] = self.asker.committed(wanted, timeout) if wanted else []
        except KafkaException as error:
            committed = [error.args[0]]
        return self.outcomes(starts, left_until(deadline)), self.outcomes(ends, left_until(deadline)), committed

    def ask_starts(self, partitions: Iterable[Partition]) -> Mapping[TopicPartition, Future[Any]]:
        """Ask from which offset on partitions hold messages; the answers come by themselves."""
        wanted = dict.fromkeys((TopicPartition(*partition) for partition in partitions), _FIRST)
        return self.client.list_offsets(wanted, request_timeout=self._options.timeout)

    def delete_before(self, offsets: Mapping[Partition, int]) -> Mapping[TopicPartition, Future[Any]]:
        """Have messages below these offsets deleted; ``OFFSET_END`` means all. The answers come by themselves."""
        wanted = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        return self.client.delete_records(wanted, request_timeout=self._options.timeout)

    # --- answers -----------------------------------------------------------------------------------

    def outcomes(self, asked: Mapping[K, Future[Any]], timeout: float | None = None) -> dict[K, Any]:
        """Return each answer, or the ``KafkaError`` instead of it, within the option ``timeout`` unless told otherwise.

        Looks instead of waiting: futures wait on locks that gevent may have replaced.
        """
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)
        pause = _FIRST_LOOK
        while not all(future.done() for future in asked.values()) and time.monotonic() < deadline:
            sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK)
        return {key: _outcome(future) for key, future in asked.items()}


def left_until(deadline: float) -> float:
    """Return how many seconds are left; never none, which librdkafka wouldn't take."""
    return max(_FIRST_LOOK, deadline - time.monotonic())


def _outcome(future: Future[Any]) -> Any:
    if not future.done():
        return KafkaError(KafkaError._TIMED_OUT)
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KafkaException):
        return error.args[0]
    raise error


def _topic(description: Any) -> Topic:
    partitions = description.partitions
    usable = all(one.leader is not None and one.leader.id >= 0 for one in partitions)
    log = str(description.topic_id)
    return Topic(len(partitions) if usable else 0, "" if log == _NO_ID else log)
