"""What ``boost doctor`` says of NATS."""

from __future__ import annotations

import pytest
from boost_broker_nats.checks import check
from boost_broker_nats.plugin import boost_checks
from boost_core.plugin import Examined, Level
from nats_stage import barred, push, raw, subscribe


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


@pytest.mark.parametrize("of", ["{}", "{}.dead"])
def test_doctor_finds_streams_that_are_unfit(server, broker, queue, of):
    """Of a queue and of its dead letters: all that a worker would refuse, as a danger with its remedy; none is made."""
    name, token = of.format(queue), of.format(queue).replace(".", "+")

    async def make(client):
        await client.jetstream().add_stream(
            name=f"boost_{token}", subjects=[f"boost.{token}.job"], storage="memory", max_msgs=5
        )

    raw(server.url, make)

    dangers = [finding for finding in examined(broker, queue) if finding.level is Level.DANGER]

    subjects = f"['boost.{token}.job', 'boost.{token}.later.*']"
    assert [finding.text for finding in dangers] == [
        f"stream 'boost_{token}' has retention='limits'; queue '{name}' needs 'workqueue'",
        f"stream 'boost_{token}' has storage='memory'; queue '{name}' needs 'file'",
        f"stream 'boost_{token}' has subjects=['boost.{token}.job']; queue '{name}' needs {subjects}",
        f"stream 'boost_{token}' has a max_msgs: messages of queue '{name}' would be dropped",
    ]
    assert dangers[0].remedy == "Delete the stream while it is empty, since it is made anew; or rename the queue."
    assert dangers[-1].remedy == "Take the stream's max_msgs away."
    assert [each for each in broker.queues() if queue in each] == []


def test_a_lease_that_is_longer_than_ours(server, build, queue, caplog):
    """Its worker may be gone: the next one and the doctor say what it means for the take-over, and what to do."""
    stream = "boost_" + queue.replace(".", "+")
    push(build(server.url), queue, "job")
    subscribe(build(server.url, lease="1m"), queue).close()
    broker = build(server.url, lease="2s")

    subscribe(broker, queue)
    warning = next(finding for finding in examined(broker, queue) if "lease" in finding.text)

    was = f"stream '{stream}': a worker with lease=60 s was there"
    assert warning.level is Level.WARNING
    assert warning.text == f"{was}: a dead one's messages wait so long, not 2 s"
    assert warning.remedy.endswith(f"once they have it: nats consumer edit {stream} workers --wait 2s")
    assert caplog.messages == [f"{warning.text}\n  {warning.remedy}"]


def test_doctor_finds_missing_permissions(launch, build, queue):
    """Of all that a worker needs, before there is a stream: it says which subject, and what to allow."""
    broker = build(barred(launch, "$JS.ACK.>"))

    (danger,) = [finding for finding in examined(broker, queue) if finding.level is Level.DANGER]

    assert danger.text.startswith('the server forbids it: permissions violation for publish to "$js.ack.boost_')
    assert danger.remedy.startswith("Allow the user to publish to boost.>, $JS.API.> and $JS.ACK.>")
