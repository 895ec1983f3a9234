"""What ``boost doctor`` says of NATS."""

from __future__ import annotations

from boost_broker_nats.checks import check
from boost_broker_nats.plugin import boost_checks
from boost_core.plugin import Examined, Level
from nats_stage import barred, push, raw


class Plan:
    """A task's plan, as far as the check looks at it."""

    def __init__(self, queue):
        self.queue = queue


def examined(broker, *queues):
    """Return what the check finds."""
    subject = Examined(broker=broker.inner, plans=tuple(map(Plan, queues)))
    return broker.portal.call(lambda: check(subject), 10)


def test_doctor_tells_what_a_stream_survives(server, broker, queue):
    """The version, a queue that isn't there yet, and what one copy means, with the remedy."""
    push(broker, queue, "job")

    version, stream, missing = examined(broker, queue, f"{queue}.none")

    assert (version.level, version.text) == (Level.OK, "NATS 2.15 with JetStream")
    assert stream.level is Level.WARNING
    assert "is kept once; a power cut loses what its server hasn't written" in stream.text
    assert "sync_interval: always" in stream.remedy
    assert missing.text == f"queue '{queue}.none' has no stream yet: the first push or worker makes it"
    assert [each.run for each in boost_checks()] == ["boost_broker_nats.checks:check"]


def test_doctor_finds_streams_that_lose_messages(server, broker, queue):
    """Kept in memory, or with a limit: dangers, each with its remedy."""
    token = queue.replace(".", "+")

    async def make(client):
        await client.jetstream().add_stream(
            name=f"boost_{token}", subjects=[f"boost.{token}.job"], storage="memory", max_msgs=5
        )

    raw(server.url, make)

    dangers = [finding for finding in examined(broker, queue) if finding.level is Level.DANGER]

    assert [(finding.text, finding.remedy) for finding in dangers] == [
        (
            f"stream boost_{token} is kept in memory: a restart of the server loses its messages",
            "Delete it while it is empty: it is made anew, on disk.",
        ),
        (f"stream boost_{token} has a max_msgs: messages will be dropped", "Take its max_msgs away."),
    ]


def test_doctor_finds_missing_permissions(launch, build, queue):
    """Of all that a worker needs, before there is a stream: it says which subject, and what to allow."""
    broker = build(barred(launch, "$JS.ACK.>"))

    (danger,) = [finding for finding in examined(broker, queue) if finding.level is Level.DANGER]

    assert danger.text.startswith('the server forbids it: permissions violation for publish to "$js.ack.boost_')
    assert danger.remedy.startswith("Allow the user to publish to boost.>, $JS.API.> and $JS.ACK.>")
