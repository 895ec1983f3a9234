"""Both brokers where the server refuses a command halfway through an operation: nothing counts that isn't whole."""

from __future__ import annotations

import pytest
from boost_core.plugin import BrokerUnavailable, Depth, Frame, PublishError, QueueSpec, SettleError
from redis_stage import bodies, build_broker, client, fetch, key, push, subscribe, take, until

PARTS = {"redis": ["body", "ready", "delayed", "expiry", "waiters"], "redis-stream": ["stream", "later", "delayed"]}
WRITES = {
    "redis": ["incrby", "hset", "zadd", "sadd", "pexpire"],
    "redis-stream": ["incr", "hset", "zadd", "xadd", "sadd", "pexpire"],
}
UNDOES = {"redis": ["zrem", "hdel", "srem", "unlink"], "redis-stream": ["zrem", "hdel", "xdel", "srem", "unlink"]}
MESSAGES = {"redis": "ready", "redis-stream": "stream"}


@pytest.fixture
def broker(name, server):
    """An opened broker."""
    broker = build_broker(name, server.url)
    yield broker
    broker.close()


@pytest.fixture
def asking(server):
    """A client that asks the server itself."""
    with client(server.url) as asking:
        yield asking


@pytest.fixture
def limited(launch):
    """What opens a broker as a user, and what changes that user's rules."""
    server = launch(settings={"user": ["default on nopass ~* &* +@all", "me on >sesame ~boost* &boost:* +@all"]})
    asking = client(server.url)
    brokers = []

    def opened(name):
        brokers.append(build_broker(name, server.url.replace("://", "://me:sesame@")))
        return brokers[-1]

    yield opened, lambda *rules: asking.execute_command("ACL", "SETUSER", "me", *rules)
    for broker in brokers:
        broker.close()
    asking.close()


@pytest.mark.parametrize("part", sorted({part for parts in PARTS.values() for part in parts}))
def test_declaring_finds_keys_of_another_kind(broker, name, asking, queue, part):
    """Another program's key in any place of a queue's is told when it is declared; once it is gone, all is well."""
    hurt = key(name, queue, part if part in PARTS[name] else "last")
    asking.set(hurt, "mine")

    with pytest.raises(BrokerUnavailable, match=f"queue '{queue}'"):
        broker.declare([QueueSpec(name=queue)])

    asking.delete(hurt)
    broker.declare([QueueSpec(name=queue)])
    assert (broker.depth(queue), broker.peek(queue, 9)) == (Depth(), [])


def test_declaring_finds_what_a_user_may_not(name, limited, queue):
    """A user that lacks any command that publishing takes, or taking it back, is refused when a queue is declared.

    Nothing is there afterwards.
    """
    opened, allow = limited
    broker = opened(name)

    for command in [*WRITES[name], *UNDOES[name]]:
        allow(f"-{command}")
        with pytest.raises(BrokerUnavailable, match=f"refuses this user: .*queue '{queue}'"):
            broker.declare([QueueSpec(name=queue)])
        with client(broker.options.url.reveal()) as asking:
            assert asking.keys(f"{broker.stem(queue)}*") == []
        allow(f"+{command}")
        broker.declare([QueueSpec(name=queue)])
        assert broker.depth(queue) == Depth()


def test_a_frame_that_was_refused_can_be_published_again(name, limited, queue):
    """What a server refuses halfway isn't stored, not even in part, and isn't taken for a duplicate afterwards."""
    opened, allow = limited
    broker = opened(name)
    frames = [Frame(str(n), queue, b"%d" % n, dedup_id=str(n), delay=n * 50.0) for n in range(2)]

    for command in WRITES[name]:
        allow(f"-{command}")
        with pytest.raises(PublishError, match="refuses this user") as caught:
            broker.publish(frames, 5.0)
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0, 1], [])
        allow(f"+{command}")
        assert broker.depth(queue) == Depth()

    broker.publish(frames, 5.0)
    broker.publish(frames, 5.0)
    assert broker.depth(queue) == Depth(ready=1, delayed=1)


def test_a_frame_in_anothers_place_can_be_published_again(broker, name, asking, queue):
    """Where another program's key is in the way of some of a batch, none of it is stored; without it, all of it is, once."""
    asking.set(key(name, queue, MESSAGES[name]), "mine")
    frames = [Frame(str(n), queue, b"%d" % n, dedup_id=str(n), delay=50.0 - n * 50) for n in range(2)]
    for _ in range(2):
        with pytest.raises(PublishError, match="has other programs' keys"):
            broker.publish(frames, 5.0)

    asking.delete(key(name, queue, MESSAGES[name]))
    assert broker.depth(queue) == Depth()
    broker.publish(frames, 5.0)
    broker.publish(frames, 5.0)
    assert broker.depth(queue) == Depth(ready=1, delayed=1)


def test_what_cannot_be_replaced_stays(broker, name, asking, queue):
    """Where one of several replacements can't be stored, the deliveries stay this worker's, and can be replaced later."""
    subscription = subscribe(broker, queue)
    push(broker, queue, 1, 2)
    held = fetch(subscription, queue)
    pairs = [
        (held[0], Frame("again", queue, b"again", delay=50)),
        (held[1], Frame("dead", f"{queue}.dead", b"dead")),
    ]
    hurt = f"{broker.stem(f'{queue}.dead')}{MESSAGES[name]}"
    asking.set(hurt, "mine")
    for _ in range(2):
        with pytest.raises(SettleError, match="has other programs' keys") as caught:
            subscription.replace(pairs)
        assert list(caught.value.failed) == list(held)
        assert broker.depth(queue) == Depth(running=2)
    assert subscription.extend(held) == []

    asking.delete(hurt)

    assert subscription.replace(pairs) == []
    assert (broker.depth(queue), bodies(broker.peek(f"{queue}.dead", 9))) == (Depth(delayed=1), ["dead"])
    subscription.close()


def test_what_cannot_be_ended_is_not_replaced(broker, name, asking, queue):
    """Where a delivery can't be ended, what was to replace it isn't stored."""
    subscription = subscribe(broker, queue)
    push(broker, queue, 1)
    held = fetch(subscription, queue)
    asking.set(key(name, queue, "deaths"), "mine")

    with pytest.raises(SettleError, match="has other programs' keys"):
        subscription.replace([(held[0], Frame("n", queue, b"next"))])

    assert broker.depth(queue) == Depth(running=1)
    asking.delete(key(name, queue, "deaths"))
    assert subscription.ack(held) == []
    subscription.close()


@pytest.mark.parametrize("command", ["hset", "zadd", "zrem", "hdel", "xreadgroup", "xadd", "xclaim", "hincrby"])
def test_what_cannot_be_claimed_waits_on(name, limited, queue, command):
    """A worker that may not do all that claiming, giving back and burying take loses nothing by trying."""
    opened, allow = limited
    broker = opened(name)
    stalled, subscription = subscribe(build_short(broker), queue), subscribe(broker, queue)
    push(broker, queue, "stalled")
    assert bodies(fetch(stalled, queue)) == ["stalled"]
    push(broker, queue, "due", delay=0.001)
    push(broker, queue, "ready")
    until(lambda: broker.depth(queue).ready == 2)
    allow(f"-{command}")

    got = []
    for _ in range(3):
        try:
            got += take(subscription, queue, 3, 0.2)
            subscription.release(got)
        except (BrokerUnavailable, SettleError) as error:
            assert "refuses this user" in str(error)
    allow(f"+{command}")
    subscription.close()
    fresh = subscribe(broker, queue)

    assert sorted(bodies(take(fresh, queue, 3))) == ["due", "ready", "stalled"]
    fresh.close()
    stalled.close()


def build_short(broker):
    """Return a broker like this whose workers have a short lease."""
    return build_broker(broker.spec.name, broker.options.url.reveal(), lease=0.1)
