"""Both brokers through their contract, within one process, on real servers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import attrs
import pytest
from boost_broker_redis import plugin
from boost_broker_redis.plugin import REDIS, REDIS_STREAM, RedisOptions
from boost_core.options import build_options
from boost_core.plugin import (
    BadOption,
    Capability,
    Closed,
    Depth,
    Frame,
    PublishError,
    QueueGone,
    QueueKind,
    QueueSpec,
    SettleError,
    UnsupportedCapability,
)
from launcher import available
from redis.crc import key_slot
from redis_stage import Background, bodies, build_broker, client, fetch, key, push, subscribe, take, until, waiters

NEVER = 1e6
"""So many seconds an idle worker of a test waits before it looks by itself."""


@pytest.fixture
def told(broker, monkeypatch):
    """The same broker for workers that don't look by themselves: they are told, or wait for what they know of."""
    monkeypatch.setattr("boost_broker_redis.subscription.LOOK_SECONDS", NEVER)
    told = build_broker(broker.spec.name, broker.options.url.reveal(), lease=NEVER * 4)
    yield told
    told.close()


def test_servers_can_be_had():
    """A server that can't be had fails the run where everything must be proven."""
    missing = {kind: reason for kind in ("redis", "valkey") if (reason := available(kind))}

    assert not missing or os.environ.get("CI") != "true"


class TestPublishAndFetch:
    """From frames to deliveries."""

    def test_round_trip(self, broker, queue, subscription):
        """What is published is fetched: queue, body, and no deaths."""
        push(broker, queue, "a")

        (delivery,) = fetch(subscription, queue)

        assert (delivery.queue, delivery.body, delivery.deaths) == (queue, b"a", 0)

    @pytest.mark.parametrize("body", [b"", b"\x00\xff" * 10, os.urandom(1024 * 1024)], ids=["empty", "binary", "1MiB"])
    def test_bodies(self, broker, queue, subscription, body):
        """Bodies are bytes, whatever is in them."""
        broker.publish([Frame("id", queue, body)], 5.0)

        assert fetch(subscription, queue)[0].body == body

    @pytest.mark.parametrize("size", [1, 2, 500, 2500])
    def test_batches_keep_order(self, broker, queue, subscription, size):
        """A batch is stored whole and fetched in its order, in as many fetches as one likes, 1,000 each at most."""
        push(broker, queue, *range(size))

        got = fetch(subscription, queue, max(1, size // 3))
        while more := fetch(subscription, queue, 5000):
            assert len(more) <= 1000
            got = [*got, *more]
        assert bodies(got) == [str(n) for n in range(size)]
        assert subscription.ack(got) == []
        assert broker.depth(queue) == Depth()

    def test_never_more_than_wanted(self, broker, queue, subscription):
        """A fetch returns at most what was wanted, and nothing of queues that weren't named."""
        subscribe(broker, f"{queue}-other").close()
        push(broker, queue, 1, 2, 3)
        push(broker, f"{queue}-other", 4)

        assert bodies(fetch(subscription, queue, 2)) == ["1", "2"]
        assert bodies(fetch(subscription, queue, 2)) == ["3"]

    def test_several_queues_at_once(self, broker, queue):
        """One fetch serves several queues, each up to its own want."""
        subscription = subscribe(broker, f"{queue}a", f"{queue}b")
        push(broker, f"{queue}a", "a1", "a2")
        push(broker, f"{queue}b", "b1")

        assert sorted(bodies(subscription.fetch({f"{queue}a": 1, f"{queue}b": 5}, 0.0))) == ["a1", "b1"]
        subscription.close()

    @pytest.mark.parametrize("odd", ["a/b {x}", "队列", "spaced out 'quoted' %41", "x" * 180, "🦀.dead", ".dead"])
    def test_any_queue_name(self, broker, queue, odd):
        """Any text names a queue, and is told as it was."""
        subscription = subscribe(broker, odd)
        broker.purge(odd)
        push(broker, odd, "x")

        assert bodies(got := fetch(subscription, odd)) == ["x"]
        assert odd in broker.queues()
        subscription.ack(got)
        subscription.close()

    def test_dead_letters_share_the_slot_of_their_queue(self, broker, queue):
        """In a cluster a queue and its dead letters would be in one slot: their keys have the same hash tag."""
        slots = {key_slot(f"{broker.stem(name)}{part}".encode()) for name in (queue, f"{queue}.dead") for part in "ab"}

        assert len(slots) == 1
        assert broker.stem(queue) != broker.stem(f"{queue}.dead")

    def test_publishing_makes_the_queue(self, broker, queue):
        """A frame for a queue that nobody declared yet waits for whoever declares it."""
        push(broker, queue, 1)
        push(broker, queue, 2)

        subscription = subscribe(broker, queue)
        assert bodies(fetch(subscription, queue)) == ["1", "2"]
        subscription.close()

    def test_queue_that_was_not_subscribed(self, subscription):
        """Fetching from a queue that isn't subscribed is an error that names it."""
        with pytest.raises(QueueGone, match="'nope'"):
            fetch(subscription, "nope")

    def test_credit_bounds_what_is_unsettled(self, broker, queue):
        """No more than its credit is held of a queue, however much is wanted."""
        subscription = subscribe(broker, queue, credit={queue: 2})
        push(broker, queue, 1, 2, 3)

        held = fetch(subscription, queue)
        assert bodies(held) == ["1", "2"]
        assert fetch(subscription, queue) == []
        subscription.ack(held[:1])
        assert bodies(fetch(subscription, queue)) == ["3"]
        subscription.close()

    def test_released_message_goes_before_later_ones(self, broker, queue, subscription):
        """A message that was given back keeps its place, also when later ones came while it ran."""
        push(broker, queue, 1)
        held = fetch(subscription, queue)
        push(broker, queue, 2)
        subscription.release(held)

        assert bodies(fetch(subscription, queue)) == ["1", "2"]

    def test_publishing_threads_lose_nothing(self, broker, queue, subscription):
        """Eight threads publish through one broker; everything is stored once."""
        threads = [
            Background(lambda name=name: [push(broker, queue, f"{name}-{n}") for n in range(25)]) for name in range(8)
        ]
        for thread in threads:
            thread.join(30)

        assert sorted(bodies(fetch(subscription, queue, 500))) == sorted(
            f"{name}-{n}" for name in range(8) for n in range(25)
        )

    def test_large_bodies_come_in_bounded_fetches(self, broker, queue, subscription):
        """A fetch ends once it has 16 MiB, or sixteen bodies, however many are wanted; the rest comes with the next."""
        body = os.urandom(1024 * 1024)
        broker.publish([Frame("id", queue, body) for _ in range(20)], 10.0)

        first, second = fetch(subscription, queue), fetch(subscription, queue)

        assert (len(first), len(second)) == (16, 4)
        assert {one.body for one in [*first, *second]} == {body}
        assert subscription.ack([*first, *second]) == []


class TestRefusals:
    """What can't be had is said, before anything is stored."""

    def test_key_is_refused(self, broker, queue):
        """A key needs an order by key, which these brokers lack; nothing of the batch is stored."""
        with pytest.raises(UnsupportedCapability, match="key_ordered"):
            broker.publish([Frame("a", queue, b""), Frame("b", queue, b"", key="k")], 5.0)

        assert broker.depth(queue) == Depth()

    @pytest.mark.parametrize(("ask", "value"), [("priority", 1), ("ttl", 5.0)])
    def test_streams_refuse_priority_and_ttl(self, servers, queue, ask, value):
        """What streams can't do is refused by name, also in ``replace``; nothing is stored or settled."""
        broker = build_broker("redis-stream", servers("redis").url)
        subscription = subscribe(broker, queue)
        push(broker, queue, "x")
        held = fetch(subscription, queue)

        with pytest.raises(UnsupportedCapability, match=f"{ask}={value:g}, but broker 'redis-stream'"):
            broker.publish([Frame("a", queue, b""), Frame("b", queue, b"", **{ask: value})], 5.0)
        with pytest.raises(UnsupportedCapability):
            subscription.replace([(held[0], Frame("b", queue, b"", **{ask: value}))])

        assert broker.depth(queue) == Depth(running=1)
        subscription.close()
        broker.close()

    @pytest.mark.parametrize("priority", [-1, 256])
    def test_priority_beyond_the_limit(self, servers, queue, priority):
        """A priority outside its range fails by index; the rest of the batch is stored."""
        broker = build_broker("redis", servers("redis").url)

        with pytest.raises(PublishError, match=f"priority {priority} is outside 0 to 255") as caught:
            broker.publish([Frame("a", queue, b""), Frame("b", queue, b"", priority=priority)], 5.0)

        assert (tuple(caught.value.failed), tuple(caught.value.unsure)) == ((1,), ())
        assert broker.depth(queue).ready == 1
        broker.close()

    def test_body_at_the_limit(self, broker, queue):
        """A body of the limit's size is stored; one of 50 MB fails, and says both sizes."""
        broker.publish([Frame("a", queue, bytes(broker.spec.limits.max_body))], 10.0)

        with pytest.raises(PublishError, match="52,428,800 bytes is over the 16,777,216") as caught:
            broker.publish([Frame("b", queue, bytes(50 * 1024 * 1024)), Frame("c", queue, b"c")], 10.0)

        assert tuple(caught.value.failed) == (0,)
        assert broker.depth(queue).ready == 2
        assert broker.purge(queue) == 2

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"durability": "disk"}, "option durability='disk' can't be used: it is 'server' or 'none'"),
            ({"lease": 0}, "it must be over 0 seconds"),
            ({"timeout": 0}, "it must be over 0 seconds"),
            ({"url": "http://host"}, "its scheme is 'http'; give one of redis, rediss,"),
            ({"url": "rediss:"}, "valkeys, and '://' behind it"),
            ({"url": "unix:/run/redis.sock"}, "its scheme is 'unix'; give one of redis,"),
            ({"url": "redis://host:port"}, "Port could not be cast"),
            ({"url": "redis://host/prod"}, "it has the number of a database, or nothing"),
            (
                {"url": "redis://host?socket_timeout=1"},
                "its parameter 'socket_timeout' is unknown; there are db, ssl_ca",
            ),
            ({"url": "redis://a..b/0"}, "its host's name has an empty part, or one of over 63 characters"),
            ({"url": "unix://?db=1"}, "behind unix:// it has the path of a socket"),
            ({"url": "redis://host?db=abc"}, "its parameter 'db' must be a number"),
            ({"url": "unix:///run/redis.sock?db="}, "its parameter 'db' must be a number"),
            ({"url": "rediss://host?ssl_cert_reqs=foo"}, "'ssl_cert_reqs' must be none, optional or required"),
            ({"url": "rediss://host?ssl_min_version=1.3"}, "'ssl_min_version' must be 771 (TLS 1.2) or 772 (TLS 1.3)"),
            ({"url": "rediss://host?ssl_check_hostname=maybe"}, "'ssl_check_hostname' must be true or false"),
            ({"url": "rediss://host?ssl_ca_data=%C3%A4"}, "'ssl_ca_data' must be certificates in PEM"),
            ({"url": "rediss://host?ssl_ca_certs="}, "its parameter 'ssl_ca_certs' must be not empty"),
            ({"url": "rediss://host?ssl_keyfile=k"}, "its parameter 'ssl_keyfile' goes with 'ssl_certfile'"),
            ({"url": "redis://host?ssl_ca_certs=f"}, "'ssl_ca_certs' is for TLS, and redis:// speaks none"),
        ],
    )
    def test_odd_options(self, options, problem):
        """An option that can't be used is named with the reason."""
        with pytest.raises(BadOption) as caught:
            build_options("broker 'redis'", RedisOptions, options)

        assert problem in str(caught.value)

    def test_secrets_do_not_show(self, servers):
        """A password in the URL shows neither in the options, nor in errors, nor in where the broker is."""
        options = build_options("broker 'redis'", RedisOptions, {"url": "rediss://me:sesame@h:1/0?ssl_password=sesame"})
        with pytest.raises(BadOption) as caught:
            build_options("broker 'redis'", RedisOptions, {"url": "redis://me:sesame@h/x"})

        assert "sesame" not in f"{options!r}{options}{caught.value}"
        assert plugin.REDIS.name == "redis"


class TestPriorityDelayTtl:
    """What a frame may ask for."""

    @pytest.fixture
    def broker(self, server):
        """The broker that knows all three."""
        broker = build_broker("redis", server.url)
        yield broker
        broker.close()

    def test_higher_priority_first(self, broker, queue, subscription):
        """Higher priorities go first, equals in their order; peeking tells them."""
        for body, priority in (("a0", 0), ("b255", 255), ("c7", 7), ("d0", 0), ("e7", 7)):
            push(broker, queue, body, priority=priority)

        assert [frame.priority for frame in broker.peek(queue, 9)] == [255, 7, 7, 0, 0]
        assert bodies(fetch(subscription, queue)) == ["b255", "c7", "e7", "a0", "d0"]

    def test_priority_across_queues(self, broker, queue):
        """Of several queues, each fetched up to its want, the higher priority comes first."""
        subscription = subscribe(broker, f"{queue}a", f"{queue}b")
        push(broker, f"{queue}a", "a1", "a2")
        push(broker, f"{queue}b", "b1")
        push(broker, f"{queue}b", "b9", priority=9)

        assert bodies(subscription.fetch({f"{queue}a": 1, f"{queue}b": 5}, 0.0)) == ["b9", "a1", "b1"]
        subscription.close()

    def test_delayed_message_takes_its_old_place(self, broker, queue, subscription):
        """A delayed frame can't be fetched before it is due, and then goes before what was published after it."""
        push(broker, queue, "late", delay=0.2)
        push(broker, queue, "now")
        assert bodies(fetch(subscription, queue)) == ["now"]
        assert broker.depth(queue) == Depth(delayed=1, running=1)

        (late,) = take(subscription, queue, 1)
        subscription.release([late])
        push(broker, queue, "after")
        assert bodies(fetch(subscription, queue)) == ["late", "after"]

    def test_ttl(self, broker, queue, subscription):
        """A frame that nobody fetched in its time to live is gone, whether it was ready or delayed."""
        push(broker, queue, "short", ttl=0.05)
        push(broker, queue, "hidden", ttl=0.05, delay=0.1)
        push(broker, queue, "long", ttl=50)
        push(broker, queue, "witness", delay=0.2)
        assert {frame.body: frame.ttl is not None for frame in broker.peek(queue, 9)}[b"long"]

        until(lambda: broker.depth(queue) == Depth(ready=2))
        assert bodies(fetch(subscription, queue)) == ["long", "witness"]

    def test_running_message_does_not_expire(self, broker, queue, subscription):
        """The time to live ends with the fetch: a running message stays, and expires only once given back."""
        push(broker, queue, "x", ttl=0.05)
        push(broker, queue, "witness", delay=0.15)
        held = fetch(subscription, queue)
        assert bodies(held) == ["x"]
        subscription.ack(take(subscription, queue, 1))
        assert broker.depth(queue) == Depth(running=1)

        assert subscription.release(held) == []
        assert fetch(subscription, queue) == []
        assert broker.depth(queue) == Depth()

    def test_nothing_is_left_behind(self, broker, queue, subscription):
        """What ran, expired, died or was purged leaves no key but the counter of a queue, and what was seen."""
        push(broker, queue, 1, 2, 3, priority=3, ttl=50, dedup_id="d")
        push(broker, queue, 4, 5, delay=50, ttl=60)
        held = fetch(subscription, queue)
        subscription.replace([(held[0], Frame("n", queue, b"next"))])
        assert broker.purge(queue) == 3
        subscription.close()

        with client(broker.options.url.reveal()) as asking:
            left = {one.rpartition(":")[2] for one in asking.scan_iter(f"{broker.stem(queue)}*")}
            assert all(asking.pttl(one) > 0 for one in asking.scan_iter(f"{broker.stem(queue)}seen:*"))
        assert {one for one in left if not one.isdecimal()} == {"last"}


class TestDelayAndDedup:
    """What both brokers do with delays and frames published twice."""

    def test_delay(self, broker, queue, told):
        """A blocked fetch returns when a delayed frame falls due, not when it looks by itself or its time ends."""
        subscription = subscribe(told, queue)
        push(broker, queue, "late", delay=0.1)
        assert broker.depth(queue) == Depth(delayed=1)
        assert fetch(subscription, queue) == []

        assert bodies(fetch(subscription, queue, timeout=20)) == ["late"]
        subscription.close()

    def test_double_publish_is_stored_once(self, broker, queue, subscription):
        """A dedup id stores one frame: in a batch, in a later one, and also when the first is done by then."""
        push(broker, queue, "a", "b", dedup_id="1")
        push(broker, queue, "c", dedup_id="1", delay=50)
        got = fetch(subscription, queue)
        subscription.ack(got)
        push(broker, queue, "d", dedup_id="1")
        push(broker, queue, "e", dedup_id="2")
        push(broker, queue, "f", "g")

        assert bodies([*got, *fetch(subscription, queue)]) == ["a", "e", "f", "g"]

    def test_dedup_ids_are_forgotten(self, broker, queue):
        """Behind twice the window a dedup id is as good as new, and what was remembered of it is gone."""
        short = build_broker(broker.spec.name, broker.options.url.reveal(), duplicate_window=0.05)
        subscription = subscribe(short, queue)
        push(short, queue, "a", dedup_id="1")
        push(short, queue, "witness", delay=0.15)
        take(subscription, queue, 2)
        push(short, queue, "b", dedup_id="1")

        assert bodies(fetch(subscription, queue)) == ["b"]
        with client(broker.options.url.reveal()) as asking:
            until(lambda: not list(asking.scan_iter(f"{broker.stem(queue)}seen:*")))
        subscription.close()
        short.close()

    def test_window_of_nothing(self, broker, queue):
        """Without a window nothing is remembered, and the broker says that it can't."""
        without = build_broker(broker.spec.name, broker.options.url.reveal(), duplicate_window=0)
        push(without, queue, "a", "b", dedup_id="1")

        assert without.depth(queue).ready == 2
        assert Capability.DEDUP in broker.spec.capabilities
        assert Capability.DEDUP not in without.spec.capabilities
        without.close()


class TestSettle:
    """How deliveries end."""

    def test_ack_ends_it(self, broker, queue, subscription):
        """An acknowledged message never comes back."""
        push(broker, queue, 1, 2)
        assert subscription.ack(fetch(subscription, queue)) == []

        assert fetch(subscription, queue) == []
        assert broker.depth(queue) == Depth()

    def test_settling_twice_is_harmless(self, broker, queue, subscription):
        """A second settle is told as not ours, and touches nothing."""
        push(broker, queue, "old", "new")
        old, new = fetch(subscription, queue)
        subscription.ack([old])

        for settle in (subscription.ack, subscription.release, subscription.extend):
            assert settle([old]) == [old]
        assert subscription.replace([(old, Frame("r", queue, b"r"))]) == [old]
        assert broker.depth(queue) == Depth(running=1)
        assert subscription.ack([new]) == []

    def test_claimed_again_it_is_another_delivery(self, broker, queue, subscription):
        """What was given back and fetched again is not settled by the first delivery of it."""
        push(broker, queue, 1)
        (first,) = fetch(subscription, queue)
        subscription.release([first])
        (second,) = fetch(subscription, queue)

        assert subscription.ack([first]) == [first]
        assert subscription.replace([(first, Frame("n", queue, b"n"))]) == [first]
        assert subscription.extend([first, second]) == [first]
        assert subscription.ack([second]) == []
        assert broker.depth(queue) == Depth()

    def test_reverse_order_and_many(self, broker, queue, subscription):
        """Any order and 1,500 at once can be settled."""
        push(broker, queue, *range(1500))
        held = [*fetch(subscription, queue, 1000), *fetch(subscription, queue, 1000)]

        assert subscription.extend(held) == []
        assert subscription.ack(held[::-1]) == []
        assert broker.depth(queue) == Depth()

    def test_release_is_uncounted(self, broker, queue, subscription):
        """A released message is there again at once, without a death."""
        push(broker, queue, 1)
        assert subscription.release(fetch(subscription, queue)) == []

        (again,) = fetch(subscription, queue)
        assert (again.body, again.deaths) == (b"1", 0)

    def test_replace(self, broker, queue, subscription):
        """A replaced delivery is gone and its frame is stored, with a queue and a delay of its own."""
        push(broker, queue, 1, 2, 3)
        one, two, three = fetch(subscription, queue)
        pairs = [(one, Frame("n", queue, b"next", delay=0.1)), (two, Frame("d", f"{queue}.dead", b"dead"))]
        pairs += [(three, Frame("e", f"{queue}-elsewhere", b"elsewhere"))]
        assert subscription.replace(pairs) == []

        assert broker.depth(queue) == Depth(delayed=1)
        assert [(frame.id, frame.body) for frame in broker.peek(f"{queue}.dead", 9)] == [("d", b"dead")]
        assert bodies(broker.peek(f"{queue}-elsewhere", 9)) == ["elsewhere"]
        assert bodies(take(subscription, queue, 1)) == ["next"]

    def test_a_misfit_fails_alone(self, broker, queue, subscription):
        """A frame that can't be stored is told and leaves its delivery as it was; the rest of the call takes effect."""
        push(broker, queue, 1, 2)
        one, two = fetch(subscription, queue)
        pairs = [(one, Frame("n", queue, b"ok")), (two, Frame("n", queue, bytes(broker.spec.limits.max_body + 1)))]

        with pytest.raises(SettleError, match="is over the 16,777,216") as caught:
            subscription.replace(pairs)

        assert caught.value.failed == [two]
        assert broker.depth(queue) == Depth(ready=1, running=1)
        assert bodies(fetch(subscription, queue)) == ["ok"]
        assert subscription.ack([two]) == []

    def test_close_gives_back_uncounted(self, broker, queue):
        """What is unsettled at close goes to others at once, at its old place and without a death; closing twice is fine."""
        first = subscribe(broker, queue)
        push(broker, queue, 1, 2)
        fetch(first, queue)
        push(broker, queue, 3)
        first.close()
        first.close()

        second = subscribe(broker, queue)
        got = fetch(second, queue)
        assert [(one.body, one.deaths) for one in got] == [(b"1", 0), (b"2", 0), (b"3", 0)]
        second.close()

    def test_used_after_close(self, broker, queue, subscription):
        """Whatever is used after it was closed says so."""
        push(broker, queue, 1)
        held = fetch(subscription, queue)
        subscription.close()
        for use in (
            lambda: fetch(subscription, queue),
            lambda: subscription.ack(held),
            lambda: subscription.extend(held),
        ):
            with pytest.raises(Closed):
                use()

        broker.close()
        for use in (lambda: push(broker, queue, 1), lambda: broker.depth(queue), lambda: broker.declare([])):
            with pytest.raises(Closed):
                use()


class TestWaiting:
    """Who waits is told, and nobody else."""

    def test_publish_wakes(self, broker, queue, told):
        """A blocked fetch returns once something is published, without looking by itself."""
        subscription = subscribe(told, queue)
        for n in range(10):
            waiting = Background(fetch, subscription, queue, 1, 60.0)
            push(broker, queue, n)
            (got,) = waiting.join()
            subscription.ack([got])
        subscription.close()

    @pytest.mark.parametrize("how", ["release", "close", "replace"])
    def test_what_comes_back_wakes(self, broker, queue, told, how):
        """Also what is given back or replaced wakes who waits."""
        holder, waiter = subscribe(told, queue), subscribe(told, queue)
        push(broker, queue, "x")
        held = fetch(holder, queue)
        waiting = Background(fetch, waiter, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)

        if how == "release":
            holder.release(held)
        elif how == "replace":
            holder.replace([(held[0], Frame("n", queue, b"x"))])
        else:
            holder.close()

        assert bodies(waiting.join()) == ["x"]
        holder.close()
        waiter.close()

    @pytest.mark.parametrize("how", ["publish", "replace"])
    def test_a_delay_that_ends_first_is_told(self, broker, queue, told, how):
        """Who waits is told of what will be due before all else, and has it in time, without looking by itself."""
        holder, waiter = subscribe(told, queue), subscribe(told, queue)
        push(broker, queue, "held")
        held = fetch(holder, queue)
        push(broker, queue, "later", delay=50)
        waiting = Background(fetch, waiter, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)

        if how == "replace":
            holder.replace([(held[0], Frame("n", queue, b"soon", delay=0.1))])
        else:
            push(broker, queue, "soon", delay=0.1)

        assert bodies(waiting.join()) == ["soon"]
        holder.close()
        waiter.close()

    @pytest.mark.parametrize("first_delay", [0.0, 0.1])
    def test_who_takes_something_else_passes_a_delay_on(self, broker, queue, told, first_delay):
        """Of two that wait for one each, one is told of a delay, and takes what comes before it: the other has it in time."""
        subscriptions = [subscribe(told, queue) for _ in range(2)]
        waiting = [Background(fetch, subscription, queue, 1, 60.0) for subscription in subscriptions]
        until(lambda: waiters(broker, queue) == 2)

        push(broker, queue, "delayed", delay=1.0)
        until(lambda: waiters(broker, queue) == 2)  # the one told waits again, and is told again
        push(broker, queue, "before", delay=first_delay)

        assert sorted(body for one in waiting for body in bodies(one.join())) == ["before", "delayed"]
        for subscription in subscriptions:
            subscription.close()

    def test_as_many_are_woken_as_there_is_work_for(self, broker, queue, told):
        """Of four that wait for one each, a batch of two wakes two; the others sleep on."""
        subscriptions = [subscribe(told, queue) for _ in range(4)]
        waiting = [Background(fetch, subscription, queue, 1, 60.0) for subscription in subscriptions]
        until(lambda: waiters(broker, queue) == 4)

        push(broker, queue, 1, 2)
        until(lambda: sum(not one.running for one in waiting) == 2)

        assert waiters(broker, queue) == 2
        push(broker, queue, 3, 4)
        assert sorted(body for one in waiting for body in bodies(one.join())) == ["1", "2", "3", "4"]
        for subscription in subscriptions:
            subscription.close()

    def test_the_one_woken_passes_on_what_it_leaves(self, broker, queue, told):
        """Who takes less than it was told of wakes the next."""
        one, other = subscribe(told, queue), subscribe(told, queue)
        with client(broker.options.url.reveal()) as asking:
            first = Background(fetch, one, queue, 1, 60.0)
            until(lambda: waiters(broker, queue) == 1)
            (worker,) = asking.zrange(key(broker.spec.name, queue, "waiters"), 0, -1)
            second = Background(fetch, other, queue, 1, 60.0)
            until(lambda: waiters(broker, queue) == 2)
            asking.zadd(key(broker.spec.name, queue, "waiters"), {worker: 50})

        push(broker, queue, 1, 2)  # the first is told of both, and takes one

        assert sorted(bodies([*first.join(), *second.join()])) == ["1", "2"]
        one.close()
        other.close()

    def test_a_dead_waiter_swallows_nothing(self, broker, queue, told):
        """One whose connection is gone isn't waited for: the next is told at once."""
        subscription = subscribe(told, queue)
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)
        with client(broker.options.url.reveal()) as asking:
            asking.zadd(key(broker.spec.name, queue, "waiters"), {"dead": 100})

        push(broker, queue, "x")

        assert bodies(waiting.join()) == ["x"]
        subscription.close()

    def test_wake(self, broker, queue, told):
        """``wake`` lets a fetch return empty-handed, also one that starts just after it; nobody is told of it then."""
        subscription = subscribe(told, queue)
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)
        subscription.wake()
        assert waiting.join() == []
        assert waiters(broker, queue) == 0

        subscription.wake()
        assert Background(fetch, subscription, queue, 1, 60.0).join() == []
        subscription.close()

    def test_close_ends_a_blocked_fetch(self, broker, queue, told):
        """``close`` from another thread lets a fetch return."""
        subscription = subscribe(told, queue)
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)

        subscription.close()

        assert waiting.join(1.0) == []
        assert waiters(broker, queue) == 0

    def test_settling_beside_a_blocked_fetch(self, broker, queue, told):
        """While one thread waits for more, others settle and extend."""
        subscription = subscribe(told, queue)
        push(broker, queue, 1, 2)
        held = fetch(subscription, queue)
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)

        assert subscription.extend(held) == []
        assert subscription.ack(held[:1]) == []
        assert subscription.release(held[1:]) == []
        assert bodies(waiting.join()) == ["2"]
        subscription.close()

    def test_several_queues_by_one_connection(self, broker, queue, proxy, told):
        """Whoever waits at twenty queues has one connection for that, and is woken by each."""
        proxy.target = int(broker.options.url.reveal().rpartition(":")[2].partition("/")[0])
        through = build_broker(broker.spec.name, f"redis://127.0.0.1:{proxy.port}/0", lease=NEVER * 4)
        names = [f"{queue}-{n}" for n in range(20)]
        subscription = subscribe(through, *names)

        for name in (names[0], names[19]):
            waiting = Background(subscription.fetch, dict.fromkeys(names, 1), 60.0)
            until(lambda name=name: waiters(broker, name) == 1)
            assert proxy.connections <= 4
            push(broker, name, name)
            (got,) = waiting.join()
            assert got.queue == name
            assert {waiters(broker, each) for each in names} == {0}
            subscription.ack([got])
        subscription.close()
        through.close()

    def test_an_idle_worker_hardly_asks(self, broker, queue, proxy):
        """With twenty queues, a worker makes at most five round trips a second once its last job's lease has run out."""
        proxy.target = int(broker.options.url.reveal().rpartition(":")[2].partition("/")[0])
        through = build_broker(broker.spec.name, f"redis://127.0.0.1:{proxy.port}/0", lease=2)
        names = [f"{queue}-{n}" for n in range(20)]
        subscription = subscribe(through, *names)
        stop = threading.Event()
        keeper = Background(lambda: [subscription.extend([]) for _ in iter(lambda: stop.wait(0.6), True)])
        push(broker, names[0], "x")
        subscription.ack(subscription.fetch(dict.fromkeys(names, 1), 2.0))
        before = proxy.round_trips

        assert subscription.fetch(dict.fromkeys(names, 1), 4.0) == []

        stop.set()
        keeper.join()
        assert proxy.round_trips - before <= 20
        assert proxy.connections <= 4
        subscription.close()
        through.close()


class TestLeases:
    """What a worker that stalls loses, and how it learns."""

    def test_take_over(self, broker, queue):
        """What isn't renewed goes to who waits, at its old place and with one death; the first owner settles nothing."""
        url, name = broker.options.url.reveal(), broker.spec.name
        first, second = (build_broker(name, url, lease=0.4) for _ in range(2))
        stalled, other = subscribe(first, queue), subscribe(second, queue)
        push(broker, queue, 1, 2)
        held = fetch(stalled, queue)
        push(broker, queue, 3)
        assert bodies(fetch(other, queue)) == ["3"]

        got = take(other, queue, 2)

        assert [(one.body, one.deaths) for one in got] == [(b"1", 1), (b"2", 1)]
        assert stalled.extend(held) == held
        assert stalled.ack(held) == held
        assert stalled.release(held) == held
        assert stalled.replace([(one, Frame("n", queue, b"n")) for one in held]) == held
        assert broker.depth(queue).running == 3
        assert other.ack(got) == []
        for each in (stalled, other, first, second):
            each.close()

    def test_an_owner_that_has_it_again(self, broker, queue):
        """A worker that lost a message and got it again settles it by the new delivery only; each death counts."""
        url, name = broker.options.url.reveal(), broker.spec.name
        brokers = [build_broker(name, url, lease=0.3) for _ in range(2)]
        one, two = (subscribe(each, queue) for each in brokers)
        push(broker, queue, "x")
        (first,) = fetch(one, queue)
        take(two, queue, 1)
        (again,) = take(one, queue, 1)

        assert again.deaths == 2
        assert one.ack([first]) == [first]
        assert one.extend([first, again]) == [first]
        assert one.ack([again]) == []
        assert broker.depth(queue) == Depth()
        for each in (one, two, *brokers):
            each.close()

    def test_renewed_it_stays(self, broker, queue):
        """What is extended in time stays, however long it runs, and a death is not counted."""
        url, name = broker.options.url.reveal(), broker.spec.name
        brokers = [build_broker(name, url, lease=0.4) for _ in range(2)]
        owner, other = (subscribe(each, queue) for each in brokers)
        push(broker, queue, "x")
        held = fetch(owner, queue)
        push(broker, queue, "witness", delay=1.0)
        stop = threading.Event()
        keeper = Background(lambda: [owner.extend(held) for _ in iter(lambda: stop.wait(0.1), True)])

        assert bodies(take(other, queue, 1)) == ["witness"]

        stop.set()
        assert set(map(len, keeper.join())) == {0}
        assert owner.ack(held) == []
        for each in (owner, other, *brokers):
            each.close()

    @pytest.mark.parametrize(("lease", "takeover"), [("2s", 3.5), (10, 13.0)])
    def test_limits_follow_the_lease(self, lease, takeover):
        """The published bounds are those of the lease that was asked for."""
        options = build_options("broker 'redis'", RedisOptions, {"lease": lease})

        assert options.effective(REDIS)[1] == attrs.evolve(REDIS.limits, lease=options.lease, takeover=takeover)

    def test_without_durability(self):
        """A broker that takes a server that forgets doesn't claim that messages persist."""
        options = RedisOptions(durability="none")

        assert options.effective(REDIS_STREAM)[0] == REDIS_STREAM.capabilities - {Capability.PERSISTENT}


class TestInspection:
    """Looking at queues from outside."""

    def test_depth_tells_states_apart(self, broker, queue, subscription):
        """What is ready, delayed and running is counted apart; what fell due is ready, what was given back too."""
        push(broker, queue, *range(5))
        push(broker, queue, "late", delay=50)
        push(broker, queue, "due", delay=0.001)
        until(lambda: broker.depth(queue).delayed == 1)
        held = fetch(subscription, queue, 3)
        subscription.release(held[:1])

        assert broker.depth(queue) == Depth(ready=4, delayed=1, running=2)
        assert broker.depth("never heard of") == Depth()

    def test_peek_takes_nothing(self, broker, queue, subscription):
        """Peeking shows what would be fetched, in its order, over many pages, and leaves it."""
        push(broker, queue, *range(250))
        held = fetch(subscription, queue, 150)
        subscription.release(held[:120])

        peeked = broker.peek(queue, 1000)

        assert bodies(peeked) == [*map(str, range(120)), *map(str, range(150, 250))]
        assert (peeked[0].id, peeked[0].queue, len(broker.peek(queue, 3))) == ("id-0", queue, 3)
        assert bodies(fetch(subscription, queue, 500)) == bodies(peeked)
        assert broker.peek("never heard of", 5) == []

    def test_purge(self, broker, queue, subscription):
        """Purging removes what waits, what was given back and what is delayed, and leaves what runs."""
        push(broker, queue, *range(2100))
        push(broker, queue, "late", delay=50)
        held = fetch(subscription, queue, 10)
        subscription.release(held[:3])

        assert broker.purge(queue) == 2094
        assert broker.depth(queue) == Depth(running=7)
        assert subscription.ack(held[3:]) == []
        assert broker.purge(queue) == 0

    def test_purged_ids_are_as_good_as_new(self, broker, queue):
        """What was purged can be published again, also with the same dedup id."""
        push(broker, queue, "a", dedup_id="1")
        broker.purge(queue)
        push(broker, queue, "b", dedup_id="1")

        assert bodies(broker.peek(queue, 9)) == ["b"]

    def test_queues_are_listed(self, broker, queue):
        """All queues that were declared are listed, companions included, sorted."""
        names = [f"{queue}-b", f"{queue}-a", f"{queue}-a.dead"]
        broker.declare([QueueSpec(name=name, kind=QueueKind.WORK) for name in names])
        broker.declare([QueueSpec(name=names[0])])

        assert [name for name in broker.queues() if name.startswith(queue)] == sorted(names)

    def test_where(self, broker, server):
        """Where it is can be shown to anybody."""
        assert broker.where() == broker.options.url.reveal()
        hidden = type(broker)(RedisOptions(url=plugin.Secret("redis://me:sesame@h/0")))
        assert hidden.where() == "redis://me:***@h/0"


def test_plugin_imports_no_client():
    """The light module names what core needs, without importing the client."""
    code = "import sys, boost_broker_redis.plugin; print({'redis', 'hiredis'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "set()\n"
    assert plugin.boost_brokers() == [REDIS, REDIS_STREAM]


def test_both_brokers_keep_apart(servers, queue):
    """The same queue of both brokers on one server is two queues."""
    url = servers("redis").url
    one, two = build_broker("redis", url), build_broker("redis-stream", url)
    push(one, queue, "x")

    assert [broker.depth(queue).ready for broker in (one, two)] == [1, 0]
    for broker, name in itertools.product((one, two), (queue,)):
        broker.purge(name)
        broker.close()
