"""Deaths of owners: what is counted, what is not, and where nobody knows."""

from __future__ import annotations

import pytest
from boost_core.plugin import Frame, PublishError, QueueSpec
from nats_stage import push, raw, subscribe, take, until


def stream_of(queue):
    """Return the name of a queue's stream."""
    return "boost_" + queue.replace(".", "+")


def notes(server, queue):
    """Return the subjects of a queue's notes."""

    async def subjects(client):
        filters = f"boost.=releases.{queue.replace('.', '+')}.>"
        return (await client.jetstream().stream_info("boost_=releases", subjects_filter=filters)).state.subjects or {}

    return raw(server.url, subjects)


def delete(server, queue, what):
    """Delete a queue's stream, or only its consumer, as a stranger."""

    async def delete(client):
        jetstream, stream = client.jetstream(), stream_of(queue)
        await (jetstream.delete_stream(stream) if what == "stream" else jetstream.delete_consumer(stream, "workers"))

    raw(server.url, delete)


def fill(broker):
    """Publish smaller and smaller messages until the server has no room for any; return their queue."""
    broker.declare([QueueSpec(name="filler")])
    for size in (200_000, 20_000, 2_000, 200, 1):
        with pytest.raises(PublishError):  # noqa: PT012 - which one fails isn't known
            for number in range(100):
                broker.publish([Frame(f"{size}.{number}.{index}", "filler", b"x" * size) for index in range(4)], 10)
    return "filler"


def test_owners_that_died_are_counted(server, build, queue):
    """What was given back doesn't count, however often; an end of the lease does, also for the next broker."""
    broker = build(server.url, lease="500ms")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    counts = []
    for release in (True, True, False, True, False, True):
        [held] = take(subscription, 1, queue)
        counts.append(held.deaths)
        if release:
            assert subscription.release([held]) == []
    [held] = take(subscribe(build(server.url), queue), 1, queue)

    assert counts == [0, 0, 0, 1, 1, 2]
    assert held.deaths == 2


def test_closing_is_no_death(broker, queue):
    """What a closed worker gave back was left by nobody who died."""
    push(broker, queue, "job")
    for _ in range(4):
        subscription = subscribe(broker, queue)
        [held] = take(subscription, 1, queue)
        assert held.deaths == 0
        subscription.close()


def test_notes_of_releases_go_with_their_messages(server, broker, queue, subscription):
    """An ack removes them: nothing is left of a job that is done."""
    push(broker, queue, "job")
    subscription.release(take(subscription, 1, queue))
    subscription.ack(take(subscription, 1, queue))

    until(lambda: not notes(server, queue))


def test_notes_of_releases_go_when_a_queue_is_purged(server, broker, queue, subscription):
    """Those of all that is purged; that of a running one stays."""
    push(broker, queue, *range(3))
    subscription.release(take(subscription, 3, queue))
    subscription.release(take(subscription, 3, queue)[1:])
    subscription.shut([queue])

    assert broker.purge(queue) == 2

    until(lambda: len(notes(server, queue)) == 1)


def test_notes_of_releases_go_when_an_idle_queue_is_purged(server, broker, queue):
    """All of them, also those of an earlier consumer."""
    push(broker, queue, *range(3))
    subscription = subscribe(broker, queue)
    subscription.release(take(subscription, 3, queue))
    subscription.close()
    delete(server, queue, "consumer")

    assert broker.purge(queue) == 3

    until(lambda: not notes(server, queue))


@pytest.fixture
def small(launch, tmp_path):
    """Return a server with room for two megabytes."""
    return launch(settings={"jetstream": {"store_dir": str(tmp_path / "data"), "max_file_store": 2_000_000}})


def test_releases_that_cannot_be_noted_are_no_deaths(small, build, queue):
    """Where JetStream has no room: neither in this process nor in another, neither then nor later."""
    broker = build(small.url)
    push(broker, queue, "innocent", "other")
    filler, counts = fill(broker), []

    for _ in range(3):
        subscription = subscribe(build(small.url), queue)
        held = take(subscription, 2, queue)
        counts += [one.deaths for one in held]
        subscription.release(held[:1])
        subscription.close()
    broker.purge(filler)
    counts += [one.deaths for one in take(subscribe(broker, queue), 2, queue)]

    assert counts == [0] * 8


def test_deaths_are_counted_anew_once_there_is_room(small, build, queue):
    """From the first hand-over that can be noted again; messages that come later are counted from their first."""
    broker = build(small.url, lease="500ms")
    subscription = subscribe(broker, queue)
    push(broker, queue, "old")
    filler = fill(broker)
    subscription.release(take(subscription, 1, queue))
    broker.purge(filler)
    push(broker, queue, "new")

    counts = {b"old": [], b"new": []}
    while min(map(len, counts.values())) < 4:
        for one in subscription.fetch({queue: 2}, 20.0):
            counts[one.body].append(one.deaths)

    assert (counts[b"old"][:4], counts[b"new"][:4]) == ([0, 1, 2, 3], [0, 1, 2, 3])


def test_notes_that_are_too_old_to_be_kept(launch, build, queue):
    """What was given back before isn't counted as a death afterwards."""
    server = launch()
    broker = build(server.url)
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")

    async def keep_shortly(client):
        config = (await client.jetstream().stream_info("boost_=releases")).config
        await client.jetstream().update_stream(config.evolve(max_age=0.2, duplicate_window=0.1))

    raw(server.url, keep_shortly)
    subscription.release(take(subscription, 1, queue))
    until(lambda: not notes(server, queue))

    assert [one.deaths for one in take(subscription, 1, queue)] == [0]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_notes_outlive_a_restart(launch, build, queue, end):
    """They are found again, by whoever comes next."""
    server = launch()
    broker = build(server.url, lease="1s")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    subscription.release(take(subscription, 1, queue))
    broker.close()

    getattr(server, end)()
    server.start()

    [held] = take(subscribe(build(server.url, lease="1s"), queue), 1, queue)
    assert held.deaths == 0


@pytest.mark.parametrize("what", ["stream", "consumer"])
def test_notes_of_a_queue_that_was_made_anew(server, build, queue, what):
    """They say nothing of the messages that have come since, whose numbers are the same."""
    broker = build(server.url, lease="500ms")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    for _ in range(3):
        subscription.release(take(subscription, 1, queue))
    subscription.close()

    delete(server, queue, what)
    if what == "stream":
        push(broker, queue, "job")
    again = subscribe(broker, queue)

    assert [take(again, 1, queue)[0].deaths for _ in range(3)] == [0, 1, 2]
