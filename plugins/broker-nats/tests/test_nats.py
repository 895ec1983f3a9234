"""The broker through its contract, on a real server."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from boost_broker_nats.plugin import SPEC
from boost_core.plugin import (
    BadOption,
    Capability,
    Closed,
    Depth,
    Frame,
    PublishError,
    QueueGone,
    QueueSpec,
    UnsupportedCapability,
)
from nats_stage import Background, bodies, make_broker, push, raw, subscribe, take, until


def test_what_is_pushed_comes_in_order_and_is_acked_for_good(broker, queue, subscription):
    """Any bytes, empty ones too; after the ack the queue is empty."""
    payloads = [b"", bytes(range(256)), *(b"%d" % number for number in range(300))]
    broker.publish([Frame(f"{index}", queue, body) for index, body in enumerate(payloads)], 10)

    deliveries = take(subscription, 302, queue)

    assert [delivery.body for delivery in deliveries] == payloads
    assert subscription.ack(deliveries[::-1]) == []
    until(lambda: broker.depth(queue) == Depth())


def test_a_fetch_never_brings_more_than_is_wanted(broker, queue, subscription):
    """Also where more had been asked for before: that waits here, for the next fetch."""
    assert subscription.fetch({queue: 50}, 0.01) == []
    push(broker, queue, *range(50))

    sizes = [len(subscription.fetch({queue: 3}, 10.0)) for _ in range(5)]

    assert max(sizes) <= 3
    assert bodies(take(subscription, 50 - sum(sizes), queue)) == [str(number) for number in range(sum(sizes), 50)]


def test_one_fetch_serves_several_queues(broker, queue):
    """Each delivery says which queue it is of; queues that aren't wanted yield nothing."""
    names = [f"{queue}.{number}" for number in range(4)]
    subscription = subscribe(broker, *names)
    for name in names:
        push(broker, name, name)

    found = take(subscription, 3, *names[:3])

    assert sorted(bodies(found)) == sorted(delivery.queue for delivery in found) == names[:3]
    assert subscription.fetch({names[0]: 5}, 0.2) == []
    assert bodies(take(subscription, 1, names[3])) == [names[3]]


def test_released_ones_come_back_at_once_in_their_old_order(broker, queue, subscription):
    """However they are given back, and before what was pushed later; no death is counted."""
    push(broker, queue, *range(4))
    first = take(subscription, 3, queue)

    assert subscription.release(first[::-1]) == []
    again = take(subscription, 4, queue)

    assert bodies(again) == ["0", "1", "2", "3"]
    assert [delivery.deaths for delivery in again] == [0, 0, 0, 0]


def test_a_fetch_without_patience_asks_all_the_same(broker, queue, subscription):
    """It brings nothing at once; what it asked for is there for one of the next."""
    push(broker, queue, "job")

    found = until(lambda: subscription.fetch({queue: 1}, 0.0))

    assert bodies(found) == ["job"]


def test_credit_bounds_what_is_unsettled(broker, queue):
    """Wanting more brings no more, until something is settled."""
    subscription = subscribe(broker, queue, credit={queue: 2})
    push(broker, queue, *range(5))

    held = take(subscription, 2, queue)

    assert subscription.fetch({queue: 5}, 0.2) == []
    subscription.ack(held)
    assert bodies(take(subscription, 2, queue)) == ["2", "3"]


def test_a_message_goes_to_another_when_its_lease_is_over(server, build, queue):
    """The late acknowledgement is refused, so that its outcome is dropped; the new owner's counts."""
    broker = build(server.url, lease="1s")
    late, other = subscribe(broker, queue), subscribe(broker, queue)
    push(broker, queue, "job")
    [held] = take(late, 1, queue)

    [taken] = take(other, 1, queue)

    assert late.ack([held]) == [held]
    assert late.extend([held]) == [held]
    assert other.ack([taken]) == []


def test_extending_keeps_a_message(server, build, queue):
    """For much longer than the lease nobody else gets it."""
    broker = build(server.url, lease="1s")
    holder, other = subscribe(broker, queue), subscribe(broker, queue)
    push(broker, queue, "job")
    [held] = take(holder, 1, queue)

    for _ in range(8):
        assert holder.extend([held]) == []
        assert other.fetch({queue: 1}, 0.3) == []

    assert holder.ack([held]) == []


def test_a_second_settlement_is_told_apart(broker, queue, subscription):
    """What was acked or released before isn't ours any more."""
    push(broker, queue, "job")
    [held] = take(subscription, 1, queue)

    assert subscription.ack([held]) == []
    assert subscription.ack([held]) == [held]
    assert subscription.release([held]) == [held]


def test_the_longest_lease_of_a_queues_workers_holds(server, build, queue):
    """They share one consumer: who is quick, or only publishes, doesn't shorten the lease of the patient."""
    patient, quick = build(server.url, lease="1m"), build(server.url, lease="2s")
    subscribe(patient, queue)
    subscribe(quick, queue)
    push(quick, queue, "job")

    async def ack_wait(client):
        return (await client.jetstream().consumer_info("boost_" + queue.replace(".", "+"), "workers")).config.ack_wait

    assert raw(server.url, ack_wait) == 60


def test_a_delayed_message_comes_when_it_is_due(broker, queue, subscription):
    """Later than those pushed after it, and not before its time; until then it counts as delayed."""
    pushed = time.time()
    push(broker, queue, "late", delay=1.0)
    push(broker, queue, "now")

    assert bodies(take(subscription, 1, queue)) == ["now"]
    assert broker.depth(queue) == Depth(delayed=1, running=1)
    assert bodies(take(subscription, 1, queue)) == ["late"]
    assert time.time() >= pushed + 1.0


def test_a_repeat_is_stored_once(broker, queue):
    """By the dedup id, delayed or not; the next attempt of the same job has another, and is stored."""
    broker.declare([QueueSpec(name=queue)])
    for delay in (0.0, 60.0):
        for dedup_id in ("job:1:0", "job:1:0", "job:2:0"):
            broker.publish([Frame("job", queue, b"job", delay=delay, dedup_id=f"{dedup_id}:{delay}")], 10)

    assert broker.depth(queue) == Depth(ready=2, delayed=2)


def test_what_nobody_fetches_in_its_time_to_live_is_removed(broker, queue):
    """Delayed ones live from when they are due; those without a time stay."""
    push(broker, queue, "short", ttl=0.5)
    push(broker, queue, "later", delay=0.5, ttl=1)
    push(broker, queue, "stays")

    until(lambda: broker.depth(queue) == Depth(ready=1))
    assert [frame.body for frame in broker.peek(queue, 5)] == [b"stays"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"priority": 3}, "priority=3, but broker 'nats' has no capability 'priority'"),
        ({"key": "k"}, "key='k', but broker 'nats' has no capability 'key_ordered'"),
        ({"delay": 5}, "delay=5, but broker 'nats' has no capability 'delay'"),
        ({"ttl": 5}, "ttl=5, but broker 'nats' has no capability 'ttl'"),
    ],
)
def test_what_it_cannot_is_refused_before_anything_is_stored(server, build, queue, facts, words):
    """Delay and time to live only without the option that turns them on; the whole batch stays away."""
    broker = build(server.url, delays=False)
    push(broker, queue, "fine")

    with pytest.raises(UnsupportedCapability, match=words):
        broker.publish([Frame("1", queue, b"fine"), Frame("2", queue, b"odd", **facts)], 10)
    assert broker.depth(queue) == Depth(ready=1)


def test_options_decide_what_it_can():
    """Delays, limits and the bound of a take-over follow from the options."""
    capabilities, limits = make_broker("nats://h", delays=False, lease="3s", max_payload=65536).inner.options.effective(
        SPEC
    )

    assert SPEC.capabilities - capabilities == {Capability.DELAY, Capability.TTL}
    assert (limits.lease, limits.takeover, limits.max_body) == (3, 8, 61440)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://h"}, "its scheme is 'http'; give nats://host:port or tls://host:port"),
        ({"url": "nats://h/path"}, "it has a host, a port and a login, and nothing behind them"),
        ({"url": "nats://a,nats://"}, "it has a host, a port and a login, and nothing behind them"),
        ({"url": "nats://h#x"}, "it has a host, a port and a login, and nothing behind them"),
        ({"url": "nats://h:abc"}, "its port must be a number from 1 to 65535"),
        ({"url": "nats://h:65536"}, "its port must be a number from 1 to 65535"),
        ({"url": "nats://h:0"}, "its port must be a number from 1 to 65535"),
        ({"inbox": "a b"}, "it is a subject: words without spaces"),
        ({"inbox": ""}, "it is a subject: words without spaces"),
        ({"inbox": "x.>"}, "it is a subject: words without spaces"),
        ({"inbox": "$JS.API"}, "what is sent there has another meaning"),
        ({"inbox": "boost"}, "what is sent there has another meaning"),
        ({"user": "me"}, "has one of 'user' and 'password'"),
        ({"password": "sesame"}, "has one of 'user' and 'password'"),
        ({"tls_key": "key.pem"}, "has a 'tls_key', but no 'tls_cert'"),
        ({"replicas": 9}, "JetStream keeps 1 to 5 copies"),
        ({"max_payload": 5}, "headers alone may take 4,096 bytes"),
        ({"max_payload": 32 * 2**20 + 1}, "JetStream stores messages of 33,554,432 bytes at most"),
        ({"lease": 0}, "it must be over 0 seconds"),
    ],
)
def test_unusable_options_are_refused(options, words):
    """With the reason, before anything is dialled."""
    with pytest.raises(BadOption, match=words):
        make_broker(**{"url": "nats://h", **options})


def test_secrets_do_not_show():
    """Neither in where it is, nor in the options."""
    urls = "nats://me:hunter2@a:1,nats://you:hunter3@b:2"
    broker = make_broker(urls, user="me", password="hunter4", token="hunter5")

    assert broker.where() == "nats://me:***@a:1, nats://you:***@b:2"
    assert "hunter" not in repr(broker.options)


def test_depth_tells_waiting_delayed_and_running_apart(broker, queue, subscription):
    """Of queues without a stream, or without a worker so far, too."""
    assert broker.depth(f"{queue}.unknown") == Depth()
    push(broker, f"{queue}.dead", *range(3))
    assert broker.depth(f"{queue}.dead") == Depth(ready=3)

    push(broker, queue, *range(5))
    push(broker, queue, "late", delay=60)
    take(subscription, 2, queue)

    assert broker.depth(queue) == Depth(ready=3, delayed=1, running=2)


def test_purging_removes_what_waits_and_spares_what_runs(broker, queue, subscription):
    """Delayed ones go too; the running one can still be given back, and comes again."""
    push(broker, queue, *range(700))
    push(broker, queue, "late", delay=60)
    held = take(subscription, 1, queue)
    subscription.shut([queue])

    assert broker.purge(queue) == 700
    until(lambda: broker.depth(queue) == Depth(running=1))
    subscription.release(held)
    assert bodies(take(subscription, 1, queue)) == ["0"]


def test_purging_an_idle_queue(broker, queue):
    """However much waits, it is one request; a queue that isn't there is empty."""
    push(broker, queue, *range(100))

    assert broker.purge(queue) == 100
    assert broker.purge(queue) == 0
    assert broker.purge(f"{queue}.unknown") == 0


def test_peeking_leaves_messages_there(broker, queue, subscription):
    """The next ones first, with their ids; those with workers aren't shown."""
    push(broker, queue, *range(5))
    take(subscription, 1, queue)
    subscription.shut([queue])

    frames = broker.peek(queue, 2)

    assert [(frame.id, frame.queue, frame.body) for frame in frames] == [("id-1", queue, b"1"), ("id-2", queue, b"2")]
    assert broker.depth(queue) == Depth(ready=4, running=1)
    assert broker.peek(f"{queue}.unknown", 5) == []


@pytest.mark.parametrize(
    "name",
    ["a b/c*d>e", "任务" * 90, "a.b", "a+b", "a=2Eb", "a" * 180, "UPPER", "upper", "\U0001f680" * 180, "=" * 180],
)
def test_any_text_names_a_queue(broker, queue, name):
    """Names that need escapes, long ones and look-alikes are queues of their own, and are listed as they are."""
    mine = f"{name[: 180 - len(queue)]}{queue}"
    subscription = subscribe(broker, mine)

    push(broker, mine, name)
    push(broker, mine, "late", delay=0.1)

    assert bodies(take(subscription, 2, mine)) == [name, "late"]
    assert mine in broker.queues()


def test_look_alikes_are_different_queues(broker, queue):
    """Also those that only differ behind where a long name is cut."""
    names = [f"{queue}{rest}" for rest in ("a.b", "a+b", "a=2Eb", "a=b")]
    names += [f"{queue}{'语' * 120}{end}" for end in ("x", "y")]

    for name in names:
        push(broker, name, name)

    assert [broker.depth(name).ready for name in names] == [1] * len(names)


def test_waking_lets_a_blocked_fetch_return(broker, queue, subscription):
    """At once, with nothing."""
    fetching = Background(subscription.fetch, {queue: 1}, 60.0)

    until(lambda: (subscription.wake(), not fetching.is_alive())[1])

    assert fetching.outcome() == []


def test_closing_lets_a_blocked_fetch_return_and_gives_back_the_rest(broker, queue, subscription):
    """What was fetched and not settled is another's at once; the closed one is of no more use."""
    push(broker, queue, *range(3))
    take(subscription, 2, queue)
    fetching = Background(subscription.fetch, {queue: 1}, 60.0)

    subscription.close()

    with pytest.raises(Closed):
        subscription.fetch({queue: 1}, 0)
    fetching.join(20)
    assert not fetching.is_alive()
    assert sorted(bodies(take(subscribe(broker, queue), 3, queue))) == ["0", "1", "2"]


def test_a_queue_that_is_shut_gets_no_more(broker, queue, subscription):
    """Its request is taken back: what is pushed goes to others, and what had come is given back to them."""
    assert subscription.fetch({queue: 8}, 0.01) == []
    push(broker, queue, *range(3))
    assert len(subscription.fetch({queue: 1}, 10.0)) == 1

    subscription.shut([queue])
    push(broker, queue, *range(3, 6))

    other = subscribe(broker, queue)
    assert sorted(bodies(take(other, 5, queue))) == ["1", "2", "3", "4", "5"]


def test_a_queue_that_was_shut_opens_again(broker, queue, subscription):
    """With the next fetch that wants it."""
    subscription.fetch({queue: 1}, 0.01)
    subscription.shut([queue])
    push(broker, queue, "job")

    assert bodies(take(subscription, 1, queue)) == ["job"]


def test_what_nobody_takes_out_of_the_box_goes_back(server, build, queue):
    """A message that came for a request which is no longer wanted is another's after an extension or two."""
    broker = build(server.url, lease="1s")
    hoarder, other = subscribe(broker, queue), subscribe(broker, queue)
    hoarder.fetch({queue: 4}, 0.01)
    push(broker, queue, *range(4))
    assert len(hoarder.fetch({queue: 1}, 10.0)) == 1

    found = []
    until(lambda: (hoarder.extend([]), found.extend(other.fetch({queue: 4}, 0.1)), len(found) >= 3)[2])

    assert {"1", "2", "3"} <= set(bodies(found))


def test_an_idle_worker_says_little(server, build, proxy, queue):
    """Twenty queues over one connection: their requests are renewed together, in a few round trips."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}", lease="3s")  # so that requests are renewed twice
    names = [f"{queue}.{number}" for number in range(20)]
    subscription = subscribe(broker, *names)
    subscription.fetch(dict.fromkeys(names, 16), 0.1)
    before = proxy.round_trips

    assert subscription.fetch(dict.fromkeys(names, 16), 4.0) == []

    assert proxy.round_trips - before <= 20
    assert proxy.connections == 1


def test_foreign_messages_arrive_as_they_are(server, broker, queue, subscription):
    """Whatever headers they carry; that they make no sense is core's to say."""
    token = queue.replace(".", "+")

    async def meddle(client):
        await client.publish(f"boost.{token}.job", b"plain")
        await client.publish(f"boost.{token}.job", b"", headers={"Status": "404", "Boost-Id": "?"})
        await client.flush()

    raw(server.url, meddle)

    assert bodies(take(subscription, 2, queue)) == ["plain", ""]


def test_bodies_up_to_the_limit_and_no_further(broker, queue, subscription):
    """What is too large fails by index, here, and its neighbours are stored."""
    largest = broker.spec.limits.max_body
    frames = [Frame(f"{size}", queue, b"x" * size) for size in (1, largest, largest + 1, 50 * 1024 * 1024, 2)]

    with pytest.raises(PublishError, match=r"a body of 1,044,481 bytes is over 1,044,480 \(2 not stored") as caught:
        broker.publish(frames, 10)

    assert (caught.value.failed, caught.value.unsure) == ([2, 3], [])
    assert [len(delivery.body) for delivery in take(subscription, 3, queue)] == [1, largest, 2]


def test_publishing_from_many_threads_loses_nothing(broker, queue):
    """Batches larger than a window, all over one connection."""
    broker.declare([QueueSpec(name=queue)])

    def publish(number):
        broker.publish([Frame(f"{number}-{index}", queue, b"x") for index in range(600)], 30)

    for thread in [Background(publish, number) for number in range(4)]:
        thread.outcome()

    assert broker.depth(queue) == Depth(ready=2400)


def test_a_queue_that_was_never_declared_has_no_stream(broker, queue, subscription):
    """Publishing there fails for sure, and says why; its neighbours are stored; fetching from it names it."""
    with pytest.raises(
        PublishError, match=r"nobody keeps boost\.gone\.job: its stream was deleted, or JetStream isn't"
    ):
        broker.publish([Frame("1", queue, b"x"), Frame("2", "gone", b"x")], 10)
    assert broker.depth(queue) == Depth(ready=1)
    with pytest.raises(QueueGone, match="queue 'gone' no longer exists"):
        subscription.fetch({"gone": 1}, 1.0)


def test_life_is_idempotent(server, queue):
    """Opened twice, closed twice, of no use afterwards."""
    broker = make_broker(server.url)
    broker.open()
    broker.open()
    push(broker, queue, "job")
    broker.portal.call(broker.inner.close, 10)
    broker.portal.call(broker.inner.close, 10)

    with pytest.raises(Closed):
        broker.publish([Frame("1", queue, b"x")], 10)
    broker.close()


def sockets():
    """Return how many sockets this process holds."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder's own is gone by now
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


def test_a_forked_child_lets_go_of_the_parents_connection(broker, queue):
    """It closes its copy of the socket, so that the server sees the parent's end; the parent goes on."""
    push(broker, queue, "before")
    child = os.fork()
    if child == 0:
        before = sockets()
        broker.after_fork()
        os._exit(before - sockets())

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    push(broker, queue, "after")
    assert broker.depth(queue) == Depth(ready=2)
