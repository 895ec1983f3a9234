"""The one producer of a process, and the delivery reports of those that publish through it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from boost_core.plugin import Closed, PublishError
from boost_core.plugin.native import Lock, sleep
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from boost_broker_kafka.config import producer_config
from boost_broker_kafka.plugin import KafkaOptions
from boost_broker_kafka.trouble import Trouble

SLICE: Final = 0.002
"""How long the thread that serves all reports may be late to see that its own have come."""

REFUSALS: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._QUEUE_FULL,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)
"""Reports after which a message surely isn't stored; after any other it may be."""

Report = Callable[[KafkaError | None, Message | None], None]


Record = tuple[str, bytes, bytes | None, int, list[tuple[str, str | bytes | None]] | None]
"""Topic, body, key, partition (-1 leaves it to the key) and headers of what is to be produced."""


class _Batch:
    """Counts the reports of one ``send``; they come in whichever thread serves the producer."""

    def __init__(self, count: int) -> None:
        self.open = set(range(count))
        self.failed: dict[int, KafkaError] = {}

    def report(self, index: int, error: KafkaError | None, _: Message | None) -> None:
        if error is not None:
            self.failed[index] = error
        self.open.discard(index)


class Outbox:
    """Produces for all threads of a process. A producer that broke for good is replaced at the next call."""

    def __init__(self, options: KafkaOptions, probe: Callable[[float], None]) -> None:
        self._options = options
        self._probe = probe
        self.trouble = Trouble(options)
        self._lock = Lock()
        self._turn = Lock()
        self._producer: Producer | None = None
        self.closed = False

    @property
    def producer(self) -> Producer:
        """The producer, made at first use."""
        producer = self._producer
        if producer is not None:
            return producer
        with self._lock:
            if self.closed:
                raise Closed("broker 'kafka'")
            if self._producer is None:
                self._producer = Producer({**producer_config(self._options), "error_cb": self.trouble.hear})
            return self._producer

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Return once all records are stored. Raises ``PublishError``; ``BrokerUnavailable`` where nothing was sent."""
        deadline = time.monotonic() + timeout
        _poll(self.producer)  # hears whether the servers went away meanwhile
        if self.trouble.down:  # what is produced then might be stored long after this call gave up
            self._probe(timeout)
            self.trouble.over()
        batch = _Batch(len(records))
        produce = self.producer.produce
        for index, (topic, body, key, partition, headers) in enumerate(records):
            report = functools.partial(batch.report, index)
            try:
                produce(topic, body, key, partition, on_delivery=report, headers=headers)
            except (BufferError, KafkaException):
                self._insist(records[index], report, deadline)
        self._serve(batch, deadline)
        if batch.open or batch.failed:
            raise self._error(batch, timeout)

    def post(self, record: Record, report: Report) -> None:
        """Produce and return; ``report`` is called later, in any thread."""
        self._insist(record, report, 0.0)

    def nudge(self) -> None:
        """Let reports of what was posted come in, for a moment."""
        _flush(self.producer, SLICE)

    def close(self, timeout: float) -> None:
        """Wait for outstanding reports, and produce no more; idempotent."""
        with self._lock:
            self.closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            _flush(producer, timeout)

    def forget(self) -> Producer | None:
        """Forget the producer, and return it to whom it may concern."""
        producer, self._producer = self._producer, None
        self.closed = True
        return producer

    # --- the producer ------------------------------------------------------------------------------

    def _insist(self, record: Record, report: Report, deadline: float) -> None:
        """Produce as soon as there is room among what other threads have on its way; report what goes wrong."""
        topic, body, key, partition, headers = record
        while True:
            try:
                self.producer.produce(topic, body, key, partition, on_delivery=report, headers=headers)
            except BufferError:
                if time.monotonic() >= deadline:
                    report(KafkaError(KafkaError._QUEUE_FULL), None)
                    return
                self.producer.poll(SLICE)
            except KafkaException as error:
                report(error.args[0], None)
                return
            else:
                return

    def _serve(self, batch: _Batch, deadline: float) -> None:
        """Serve the producer until the batch's reports are in: its own thread, or one that came before.

        ``flush`` sends at once what else would wait for company; but it waits for everybody's reports, hence in slices.
        """
        while batch.open:
            left = deadline - time.monotonic()
            if left <= 0 or not self._turn.acquire(timeout=left):
                return
            try:
                wait = SLICE
                while batch.open and (left := deadline - time.monotonic()) > 0:
                    _flush(self.producer, min(wait, left))
                    wait = min(wait * 1.5, 0.05)
            finally:
                self._turn.release()

    def _error(self, batch: _Batch, timeout: float) -> PublishError:
        failed = sorted(index for index, error in batch.failed.items() if error.code() in REFUSALS)
        unsure = sorted({*batch.open, *batch.failed}.difference(failed))
        errors = [*batch.failed.values()]
        if any(error.fatal() for error in errors):
            self._replace()
        if not errors or errors[0].code() == KafkaError._MSG_TIMED_OUT:
            problem = f"no report within {timeout:g} s: {self.trouble.reason()}"
        else:
            problem = errors[0].str()
        return PublishError("kafka", problem, failed, unsure)

    def _replace(self) -> None:
        with self._lock:
            self._producer = None


def _flush(producer: Producer, seconds: float) -> None:
    """Have what waits sent at once, and reports come in for so long; a producer that broke says so in each of them."""
    try:
        producer.flush(seconds)
    except KafkaException:
        sleep(SLICE)


def _poll(producer: Producer) -> None:
    """Have what came in be heard; unlike ``flush`` it wakes none of the client's threads."""
    with suppress(KafkaException):
        producer.poll(0)
