"""What the contract says of every broker, and what a capability means where it is declared; refusals where it isn't."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
from boost_core.errors import Closed, PublishError, SettleError, UnsupportedCapability
from boost_core.plugin import Capability, Frame, QueueSpec, new_id
from houses import Stage, bodies, fetch, unique

LONG = 30.0


def test_what_is_published_is_fetched(stage: Stage) -> None:
    """Empty and binary bodies and one of a good size arrive as they were, none with a death."""
    queue = stage.queue()
    sent = [b"", bytes(range(256)), b"\n\x00\xff" * 60_000]
    stage.publish(queue, *sent)

    deliveries = fetch(stage.subscribe(queue), {queue: 3})

    assert sorted(bodies(deliveries)) == sorted(sent)
    assert {delivery.queue for delivery in deliveries} == {queue}
    assert {delivery.deaths for delivery in deliveries} == {0}


def test_a_batch_is_stored_whole(stage: Stage) -> None:
    """Five hundred at once; in their order where the broker keeps one."""
    queue = stage.queue()
    sent = [b"%d" % number for number in range(500)]
    stage.publish(queue, *sent)

    found = bodies(fetch(stage.subscribe(queue), {queue: 500}, LONG))

    assert sorted(found) == sorted(sent)
    if stage.can(Capability.ORDERED):
        assert found == sent


def test_never_more_than_wanted(stage: Stage) -> None:
    """A fetch brings at most what is wanted of each queue, and nothing of a queue that isn't named."""
    first, second = stage.queue(), stage.queue()
    stage.publish(first, *[b"1"] * 10)
    stage.publish(second, *[b"2"] * 10)
    subscription = stage.subscribe(first, second)

    for _ in range(3):
        found = fetch(subscription, {first: 2})
        assert [delivery.queue for delivery in found] == [first, first]
    both = fetch(subscription, {first: 4, second: 3})

    assert sorted(delivery.queue for delivery in both) == sorted([first] * 4 + [second] * 3)


def test_nothing_there_is_an_empty_list_in_time(stage: Stage) -> None:
    """An empty queue yields [] after the time-out, not before an answer is due and not with an error."""
    queue = stage.queue()

    assert list(stage.subscribe(queue).fetch({queue: 1}, 0.2)) == []


def test_a_blocked_fetch_returns_when_something_comes(stage: Stage) -> None:
    """What another thread publishes ends the wait."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    fetch(subscription, {queue: 1}, 0.1)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.extend(fetch(subscription, {queue: 1})))
    waiting.start()

    stage.publish(queue, b"here")
    waiting.join(LONG)

    assert bodies(found) == [b"here"]


def test_wake_ends_a_fetch(stage: Stage) -> None:
    """A blocked fetch returns at once when woken."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    fetching, ended = threading.Event(), threading.Event()

    def block() -> None:
        fetching.set()
        subscription.fetch({queue: 1}, 600.0)
        ended.set()

    threading.Thread(target=block, daemon=True).start()
    assert fetching.wait(LONG)
    while not ended.wait(0.05):
        subscription.wake()


def test_a_queue_of_any_name(stage: Stage) -> None:
    """Slashes, blanks, dots, wildcards and Chinese name a queue like any other, and none is taken for another."""
    names = [unique(), f"{unique()}/a b", f"{unique()}.c*d>e", f"订单{unique()}"]
    for name in names:
        stage.queue(name)
        stage.publish(name, name.encode())
    subscription = stage.subscribe(*names)

    found = fetch(subscription, dict.fromkeys(names, 1), LONG)

    assert {delivery.queue: bytes(delivery.body).decode() for delivery in found} == {name: name for name in names}


def test_two_subscriptions_share_a_queue(stage: Stage) -> None:
    """Each message goes to one of them."""
    queue = stage.queue()
    one, other = stage.subscribe(queue), stage.subscribe(queue)
    stage.publish(queue, *[b"%d" % number for number in range(100)])
    found: list[bytes] = []
    lock = threading.Lock()

    def take(subscription: Any) -> None:
        while len(found) < 100:
            deliveries = subscription.fetch({queue: 5}, 0.5)
            subscription.ack(deliveries)
            with lock:
                found.extend(bodies(deliveries))

    threads = [threading.Thread(target=take, args=(subscription,)) for subscription in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    assert sorted(found, key=int) == [b"%d" % number for number in range(100)]


def test_acked_is_gone_unacked_comes_back(stage: Stage) -> None:
    """After a clean close what was acked never returns, and what wasn't goes to another, without a death."""
    queue = stage.queue()
    first = stage.subscribe(queue)
    stage.publish(queue, *[b"%d" % number for number in range(10)])
    deliveries = fetch(first, {queue: 10})
    done = [delivery for delivery in deliveries if int(bytes(delivery.body)) % 2]

    assert list(first.ack(done)) == []
    first.close()
    second = stage.subscribe(queue)
    again = fetch(second, {queue: 5}, LONG)

    assert sorted(bodies(again)) == [b"0", b"2", b"4", b"6", b"8"]
    assert {delivery.deaths for delivery in again} == {0}
    assert list(second.fetch({queue: 1}, 0.2)) == []


def test_released_is_there_again_without_a_death(stage: Stage) -> None:
    """Give back uncounted: the same subscription may have it again at once."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    stage.publish(queue, b"again")
    (delivery,) = fetch(subscription, {queue: 1})

    assert list(subscription.release([delivery])) == []
    (again,) = fetch(subscription, {queue: 1}, LONG)

    assert (bytes(again.body), again.deaths) == (b"again", 0)
    assert list(subscription.ack([again])) == []


def test_five_hundred_settled_in_reverse(stage: Stage) -> None:
    """Acks may come in any order and any number."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    stage.publish(queue, *[b"x"] * 500)
    deliveries = fetch(subscription, {queue: 500}, LONG)

    assert list(subscription.ack(deliveries[::-1])) == []
    subscription.close()

    assert list(stage.subscribe(queue).fetch({queue: 1}, 0.3)) == []


def test_a_second_ack_is_harmless(stage: Stage) -> None:
    """It may be told as no longer ours; it never takes another message with it."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    stage.publish(queue, b"first")
    (delivery,) = fetch(subscription, {queue: 1})
    subscription.ack([delivery])
    stage.publish(queue, b"second")

    subscription.ack([delivery])

    assert bodies(fetch(subscription, {queue: 1})) == [b"second"]


def test_close_ends_a_blocked_fetch(stage: Stage) -> None:
    """From another thread, and what was held goes back."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    stage.publish(queue, b"held")
    fetch(subscription, {queue: 1})
    returned = threading.Event()

    def block() -> None:
        with contextlib.suppress(Closed):  # the close may be faster than the fetch
            subscription.fetch({queue: 1}, 600.0)
        returned.set()

    thread = threading.Thread(target=block, daemon=True)
    thread.start()
    subscription.close()

    assert returned.wait(LONG)
    assert bodies(fetch(stage.subscribe(queue), {queue: 1}, LONG)) == [b"held"]


def test_eight_threads_publish_at_once(stage: Stage) -> None:
    """Nothing is lost or doubled."""
    queue = stage.queue()
    threads = [
        threading.Thread(target=lambda start=start: [stage.publish(queue, b"%d" % (start + n)) for n in range(20)])
        for start in range(0, 160, 20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    found = bodies(fetch(stage.subscribe(queue), {queue: 160}, LONG))

    assert sorted(found, key=int) == [b"%d" % number for number in range(160)]


def test_jobs_pushed_before_the_first_worker_are_seen(stage: Stage) -> None:
    """Whoever subscribes for the first time finds what has waited."""
    queue = stage.queue()
    stage.publish(queue, b"early")

    assert bodies(fetch(stage.subscribe(queue), {queue: 1}, LONG)) == [b"early"]


# --- capabilities: proven where declared, refused where not ------------------------------------------------


def refused(stage: Stage, capability: Capability, **facts: Any) -> None:
    """Demand that a frame asking for what the broker lacks is refused, and nothing of its batch stored."""
    queue = stage.queue()
    frames = [Frame(new_id(), queue, b"plain"), Frame(new_id(), queue, b"odd", **facts)]
    with pytest.raises(UnsupportedCapability, match=f"has no capability '{capability.value}'"):
        stage.broker.publish(frames, 10.0)
    assert list(stage.subscribe(queue).fetch({queue: 2}, 0.3)) == []


def test_replace(stage: Stage) -> None:
    """The delivery is gone and the frame is there instead; core publishes and acks where the broker can't."""
    queue = stage.queue()
    if not stage.can(Capability.REPLACE):
        subscription = stage.subscribe(queue)
        stage.publish(queue, b"old")
        (delivery,) = fetch(subscription, {queue: 1})
        with pytest.raises((UnsupportedCapability, NotImplementedError)):
            subscription.replace([(delivery, Frame(new_id(), queue, b"new"))])
        return
    subscription = stage.subscribe(queue)
    stage.publish(queue, b"old")
    (delivery,) = fetch(subscription, {queue: 1})

    assert list(subscription.replace([(delivery, Frame(new_id(), queue, b"new"))])) == []
    (new,) = fetch(subscription, {queue: 1})
    subscription.ack([new])

    assert bytes(new.body) == b"new"
    assert list(subscription.fetch({queue: 1}, 0.2)) == []


def test_a_frame_that_does_not_fit_fails_alone(stage: Stage) -> None:
    """Its delivery is told and stays; all other frames of the batch are stored instead of theirs."""
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    stage.publish(queue, b"0", b"1", b"2")
    deliveries = fetch(subscription, {queue: 3})
    sizes = {b"0": 1, b"1": stage.spec.limits.max_body + 1, b"2": 2}
    frames = [Frame(new_id(), queue, b"x" * sizes[bytes(delivery.body)]) for delivery in deliveries]
    misfit = next(one for one in deliveries if bytes(one.body) == b"1")

    if stage.can(Capability.REPLACE):
        with pytest.raises(SettleError) as unsettled:
            subscription.replace(list(zip(deliveries, frames, strict=True)))
        assert list(unsettled.value.failed) == [misfit]
    else:  # then core publishes, and acks what went on
        with pytest.raises(PublishError) as unpublished:
            stage.broker.publish(frames, 10.0)
        assert [deliveries[index] for index in (*unpublished.value.failed, *unpublished.value.unsure)] == [misfit]
        assert list(subscription.ack([one for one in deliveries if one is not misfit])) == []
    subscription.close()

    assert sorted(bodies(fetch(stage.subscribe(queue), {queue: 3}, LONG))) == [b"1", b"x", b"xx"]


def test_delay(stage: Stage) -> None:
    """A delayed frame comes no earlier than its time, after one that was published later without a delay."""
    if not stage.can(Capability.DELAY):
        refused(stage, Capability.DELAY, delay=1.0)
        return
    queue = stage.queue()
    subscription = stage.subscribe(queue)
    begun = time.monotonic()
    stage.publish(queue, b"late", delay=4.0)
    stage.publish(queue, b"soon")

    (soon,) = fetch(subscription, {queue: 1})
    (late,) = fetch(subscription, {queue: 1}, LONG)

    assert bodies([soon, late]) == [b"soon", b"late"]
    assert time.monotonic() - begun >= 4.0 - stage.spec.limits.delay_resolution


def test_priority(stage: Stage) -> None:
    """Among waiting messages the higher priority goes first."""
    if not stage.can(Capability.PRIORITY):
        refused(stage, Capability.PRIORITY, priority=1)
        return
    queue = stage.queue()
    for priority in (0, 5, 2, 9):
        stage.publish(queue, b"%d" % priority, priority=priority)
    subscription = stage.subscribe(queue, credit=1)

    found = []
    for _ in range(4):
        (delivery,) = fetch(subscription, {queue: 1})
        subscription.ack([delivery])
        found += bodies([delivery])

    assert found == [b"9", b"5", b"2", b"0"]


def test_key(stage: Stage) -> None:
    """Frames of one key come in their order."""
    if not stage.can(Capability.KEY_ORDERED):
        refused(stage, Capability.KEY_ORDERED, key="k")
        return
    queue = stage.queue()
    for number in range(30):
        stage.publish(queue, b"%d" % number, key=f"k{number % 3}")

    found = bodies(fetch(stage.subscribe(queue), {queue: 30}, LONG))

    for rest in range(3):
        mine = [int(body) for body in found if int(body) % 3 == rest]
        assert mine == sorted(mine)


def test_ttl(stage: Stage) -> None:
    """What nobody fetched in its time to live is gone."""
    if not stage.can(Capability.TTL):
        refused(stage, Capability.TTL, ttl=1.0)
        return
    queue = stage.queue()
    stage.publish(queue, b"mortal", ttl=1.0)
    stage.publish(queue, b"immortal")
    time.sleep(2.1)

    assert bodies(fetch(stage.subscribe(queue), {queue: 2}, 2.0)) == [b"immortal"]


def test_dedup(stage: Stage) -> None:
    """The same dedup id stores one message; an undeclared one makes two: at least once."""
    queue = stage.queue()
    name = new_id()
    for _ in range(2):
        stage.broker.publish([Frame(name, queue, b"once", dedup_id=f"{name}:1:0")], 10.0)

    times, patience = (1, 3.0) if stage.can(Capability.DEDUP) else (2, LONG)
    found = bodies(fetch(stage.subscribe(queue), {queue: 2}, patience))

    assert found == [b"once"] * times


def test_depth_and_purge(stage: Stage) -> None:
    """What waits is counted, and can be removed at once; what the broker can't do is refused by name."""
    queue = stage.queue()
    if not stage.can(Capability.DEPTH, Capability.PURGE):
        for refused_call in (stage.broker.purge, stage.broker.depth):
            with pytest.raises(UnsupportedCapability):
                refused_call(queue)
        return
    stage.publish(queue, *[b"x"] * 7)

    assert stage.broker.depth(queue).ready == 7
    assert stage.broker.purge(queue) == 7
    assert stage.broker.depth(queue).ready == 0
    assert list(stage.subscribe(queue).fetch({queue: 1}, 0.3)) == []


def test_peek(stage: Stage) -> None:
    """The next messages are seen and left there."""
    queue = stage.queue()
    if not stage.can(Capability.PEEK):
        with pytest.raises(UnsupportedCapability):
            stage.broker.peek(queue, 1)
        return
    stage.publish(queue, b"1", b"2", b"3")

    assert [bytes(frame.body) for frame in stage.broker.peek(queue, 2)] == [b"1", b"2"]
    assert queue in stage.broker.queues()
    assert bodies(fetch(stage.subscribe(queue), {queue: 3})) == [b"1", b"2", b"3"]


def test_declaring_again_changes_nothing(stage: Stage) -> None:
    """Idempotent, with messages on the queue."""
    queue = stage.queue()
    stage.publish(queue, b"kept")

    stage.broker.declare([QueueSpec(name=queue, priorities=1)] if not stage.can(Capability.PRIORITY) else [])
    stage.queue(queue)

    assert bodies(fetch(stage.subscribe(queue), {queue: 1}, LONG)) == [b"kept"]
