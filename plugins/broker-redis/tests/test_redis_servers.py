"""Both brokers on servers that are full, hold what others left, or go away."""

from __future__ import annotations

import time

import pytest
from boost_core.plugin import ConnectionLost, Depth, Frame, PublishError
from redis_stage import (
    Background,
    again,
    bodies,
    build_broker,
    client,
    fetch,
    key,
    push,
    push_surely,
    subscribe,
    take,
    until,
    user,
)


class TestFull:
    """A server whose memory is full."""

    @pytest.mark.parametrize("kind", ["redis", "valkey"])
    def test_publishing_fails_and_workers_go_on(self, name, launch, queue, kind):
        """Publishing says why it fails; workers can fetch, retry, settle, wait and leave, and then it works again."""
        server = launch(kind, settings={"maxmemory": "12mb"})
        broker = build_broker(name, server.url)
        subscription = subscribe(broker, queue)
        with pytest.raises(PublishError, match=r"has no memory left \(maxmemory\)") as caught:
            for number in range(1000):
                broker.publish([Frame(str(number), queue, bytes(200_000), dedup_id=str(number))], 5.0)
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0], [])
        with client(server.url) as asking:
            asking.config_set("maxmemory", "2mb")  # far below what it holds

        held = fetch(subscription, queue, 3)
        assert len(held) == 3
        assert subscription.extend(held) == []
        assert subscription.replace([(held[0], Frame("n", queue, b"next", delay=0.01))]) == []
        assert subscription.release(held[1:2]) == []
        subscription.reconnect()
        second = subscribe(broker, queue)
        subscription.close()
        ended = 0
        while got := fetch(second, queue, 1000, 0.5):
            assert second.ack(got) == []
            ended += len(got)

        assert ended == number
        push(broker, queue, "again")
        assert broker.depth(queue) == Depth(ready=1)
        second.close()
        broker.close()

    def test_the_disk_alarm(self, name, launch, queue):
        """A server that can't save, and therefore takes no writes, says so."""
        server = launch(settings={"save": "3600 1", "appendonly": "no", "dbfilename": "taken"})
        broker = build_broker(name, server.url, durability="none")
        with client(server.url) as asking:
            (server.folder / "data" / "taken").mkdir()  # can't be written over
            asking.set("x", "y")
            asking.bgsave()
            until(lambda: asking.info("persistence")["rdb_last_bgsave_status"] == "err")

        with pytest.raises(PublishError, match="can't write to its disk, and takes nothing") as caught:
            push(broker, queue, "x")

        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0], [])
        broker.close()


class TestForeigners:
    """Other programs among our keys."""

    def test_foreign_place(self, server, queue, caplog):
        """An entry without a message is removed, and said; its neighbours are unharmed."""
        broker = build_broker("redis", server.url)
        subscription = subscribe(broker, queue)
        push(broker, queue, "ours")
        with client(server.url) as asking:
            asking.zadd(key("redis", queue, "ready"), {"stranger": -5, "another": 7})

        assert bodies(fetch(subscription, queue)) == ["ours"]
        assert f"queue {queue}: 2 entries of other programs had no message and were removed" in caplog.messages
        subscription.close()
        broker.close()

    def test_foreign_record(self, server, queue):
        """A message that somebody else put there is delivered as it is: core makes it a dead letter."""
        broker = build_broker("redis", server.url)
        subscription = subscribe(broker, f"{queue}a", queue)
        with client(server.url) as asking:
            for place, record in (("1", "{}"), ("stranger", "garbage"), ("3", "")):
                asking.hset(key("redis", queue, "body"), place, record)
                asking.zadd(key("redis", queue, "ready"), {place: 1})

        got = subscription.fetch({queue: 5, f"{queue}a": 5}, 0.0)

        assert sorted(bodies(got)) == ["", "garbage", "{}"]
        assert sorted(frame.id for frame in broker.peek(queue, 9)) == []
        assert subscription.ack(got) == []
        subscription.close()
        broker.close()

    def test_foreign_entry_of_a_stream(self, server, queue):
        """An entry that somebody else appended is delivered as its fields: core makes it a dead letter."""
        broker = build_broker("redis-stream", server.url)
        subscription = subscribe(broker, queue)
        with client(server.url) as asking:
            asking.xadd(key("redis-stream", queue, "stream"), {"record": "\0\0\0\0x", "more": "1"})
        push(broker, queue, "ours")

        assert [frame.id for frame in broker.peek(queue, 9)] == ["", "id-ours"]
        got = fetch(subscription, queue)

        assert bodies(got) == ["record \0\0\0\0x more 1", "ours"]
        assert subscription.ack(got) == []
        subscription.close()
        broker.close()

    def test_keys_of_another_kind(self, name, server, queue):
        """A key of another program where ours should be is told, and nothing is stored."""
        broker = build_broker(name, server.url)
        with client(server.url) as asking:
            asking.set(key(name, queue, "ready" if name == "redis" else "stream"), "mine")

        with pytest.raises(PublishError, match="has other programs' keys where a queue's should be") as caught:
            push(broker, queue, "x")

        assert list(caught.value.failed) == [0]
        broker.close()

    @pytest.mark.parametrize("what", ["keys", "group"])
    def test_queue_removed_under_a_consumer(self, name, server, queue, what):
        """After somebody removed a queue, what was held is fenced, and the consumer goes on with what comes."""
        broker = build_broker(name, server.url)
        subscription = subscribe(broker, queue)
        push(broker, queue, 1, 2, 3)
        held = fetch(subscription, queue, 2)
        with client(server.url) as asking:
            if what == "keys" or name == "redis":
                asking.delete(*asking.scan_iter(f"{broker.stem(queue)}*"))
            else:
                asking.xgroup_destroy(key(name, queue, "stream"), "boost")

        assert subscription.extend(held) == held
        assert subscription.ack(held) == held
        assert broker.depth(queue).running == 0
        left = fetch(subscription, queue)
        push(broker, queue, 4)
        got = [*left, *fetch(subscription, queue)]

        assert bodies(got) == (["4"] if what == "keys" or name == "redis" else ["1", "2", "3", "4"])
        assert subscription.ack(got) == []
        subscription.close()
        broker.close()

    def test_entries_deleted_from_a_stream(self, server, queue):
        """Entries that somebody trimmed away while they ran, waited or were given back are gone, and nothing else."""
        broker = build_broker("redis-stream", server.url, lease=0.2)
        owner, other = subscribe(broker, queue), subscribe(broker, queue)
        push(broker, queue, *range(6))
        held = fetch(owner, queue, 4)
        owner.release(held[:2])
        with client(server.url) as asking:
            entries = asking.xrange(key("redis-stream", queue, "stream"))
            asking.xdel(key("redis-stream", queue, "stream"), *(entries[number][0] for number in (0, 2, 4)))

        assert bodies(got := take(other, queue, 3)) == ["1", "5", "3"]
        assert fetch(other, queue) == []
        assert other.ack(got) == []
        with client(server.url) as asking:
            assert not asking.exists(key("redis-stream", queue, "deaths"))
        owner.close()
        other.close()
        broker.close()


class TestRestart:
    """A server that is killed and comes back."""

    @pytest.mark.parametrize("kind", ["redis", "valkey"])
    def test_in_the_middle_of_publishing(self, name, launch, queue, kind):
        """Killed and restarted three times under a publisher that repeats what failed or is unsure: each frame is there once."""
        server = launch(kind)
        broker = build_broker(name, server.url)
        frames = [
            [Frame(f"{n}", queue, b"%d" % n, dedup_id=str(n)) for n in range(b * 20, b * 20 + 20)] for b in range(300)
        ]
        publishing = Background(lambda: [push_surely(broker, batch) for batch in frames])
        for _ in range(3):
            until(lambda before=broker_depth(server, broker, queue): broker_depth(server, broker, queue) > before)
            server.kill()
            server.start()

        publishing.join(50)
        assert bodies(broker.peek(queue, 10_000)) == [str(n) for n in range(6000)]
        broker.close()

    @pytest.mark.parametrize("kind", ["redis", "valkey"])
    def test_under_load(self, name, launch, queue, kind):
        """Killed and restarted under publishers and consumers: nothing is lost, and consuming goes on by itself."""
        server = launch(kind)
        broker = build_broker(name, server.url, timeout=2.0)
        done: list[str] = []
        consumers = [Background(consume_all, broker, queue, done, 900) for _ in range(2)]
        batches = [
            [Frame(str(n), queue, b"%d" % n, dedup_id=str(n)) for n in range(b, b + 3)] for b in range(0, 900, 3)
        ]
        publishing = Background(lambda: [push_surely(broker, batch) for batch in batches])
        for part in (1, 2):
            until(lambda part=part: len(done) > part * 150, 30)
            server.kill()
            server.start()

        publishing.join(50)
        for consumer in consumers:
            consumer.join(50)
        assert set(done) == set(map(str, range(900)))
        assert broker.depth(queue) == Depth()
        broker.close()


class TestOutage:
    """A server that is away for longer than the lease."""

    @pytest.mark.parametrize("kind", ["redis", "valkey"])
    def test_the_living_keep_their_jobs(self, name, launch, queue, kind):
        """Whoever comes back keeps what it ran, though its lease was over; whoever doesn't is taken for dead in time."""
        server = launch(kind)
        broker = build_broker(name, server.url, lease=0.5)
        living, dead, other = (subscribe(broker, queue) for _ in range(3))
        push(broker, queue, "kept", "lost")
        kept = fetch(living, queue, 1)
        assert bodies(fetch(dead, queue, 1)) == ["lost"]
        over = time.monotonic() + broker.options.lease
        server.kill()
        until(lambda: time.monotonic() > over)
        server.start()

        fresh = subscribe(broker, queue)
        assert fetch(fresh, queue, 2, 0.5) == []
        again(other)
        assert fetch(other, queue, 2, 0.5) == []
        again(living)
        assert living.extend(kept) == living.ack(kept) == []
        got = take(fresh, queue, 1)

        assert [(one.body, one.deaths) for one in got] == [(b"lost", 1)]
        for each in (living, dead, other, fresh, broker):
            each.close()

    def test_who_was_cut_off_itself_buries_nobody(self, name, launch, proxy, queue):
        """A worker that lost its connection lets others come back too, also where it may not ask how long the server is up."""
        url = user(launch, "~*", "&*", "+@all", "-info")
        proxy.target = int(url.rpartition(":")[2].partition("/")[0])
        broker = build_broker(name, url.replace(f":{proxy.target}", f":{proxy.port}"), lease=0.5)
        owner, other = subscribe(broker, queue), subscribe(broker, queue)
        push(broker, queue, "x")
        held = fetch(owner, queue)
        proxy.cut()
        again(other)

        assert fetch(other, queue, 1, 3 * broker.options.lease) == []
        again(owner)
        assert owner.extend(held) == []
        got = take(other, queue, 1, broker.spec.limits.takeover)  # of one that has renewed since, and then no more
        assert [(one.body, one.deaths) for one in got] == [(b"x", 1)]
        for each in (owner, other, broker):
            each.close()


class TestChangedServer:
    """A server that comes back as another one."""

    @pytest.fixture
    def changed(self, name, launch, queue):
        """A broker, its subscription, and its server, which has come back without its log."""
        server = launch()
        broker = build_broker(name, server.url)
        subscription = subscribe(broker, queue)
        push(broker, queue, "x")
        server.kill()
        server.settings = {"appendonly": "no"}
        server.start()
        yield broker, subscription, server
        subscription.close()
        broker.close()

    def test_workers_and_publishers_refuse_what_forgets(self, changed, queue, caplog):
        """Nothing is sent to it: publishing says why and stores nothing, a worker dials again and says so once."""
        broker, subscription, server = changed

        with pytest.raises(PublishError, match=r"keeps messages in memory only \(appendonly no\)") as caught:
            push(broker, queue, "y")
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0], [])
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"keeps messages in memory only \(appendonly no\)"):
                subscription.reconnect()
        with client(server.url) as asking:
            assert asking.keys() == []
        assert [record.levelname for record in caplog.records if "appendonly no" in record.message] == ["WARNING"]

    def test_they_go_on_once_it_is_mended(self, changed, queue):
        """After another restart with its log both go on by themselves."""
        broker, subscription, server = changed
        with pytest.raises(ConnectionLost):
            subscription.reconnect()
        with pytest.raises(PublishError):
            push(broker, queue, "y")

        server.kill()
        server.settings = {}
        server.start()

        again(subscription)
        push_surely(broker, [Frame("z", queue, b"z")])
        assert "z" in bodies(got := fetch(subscription, queue))
        assert subscription.ack(got) == []

    def test_what_was_accepted_at_opening_is_accepted_again(self, name, launch, queue):
        """With durability="none" a server that forgets is dialled again like any other."""
        server = launch(settings={"appendonly": "no"})
        broker = build_broker(name, server.url, durability="none")
        subscription = subscribe(broker, queue)
        push(broker, queue, "x")
        server.kill()
        server.start()

        again(subscription)
        push_surely(broker, [Frame("z", queue, b"z")])
        assert "z" in bodies(fetch(subscription, queue))
        subscription.close()
        broker.close()

    def test_it_is_looked_at_once(self, broker, proxy, queue):
        """Only what is dialled after a loss costs the look: a round trip, and none for the connections after it."""
        proxy.target = int(broker.options.url.reveal().rpartition(":")[2].partition("/")[0])
        through = build_broker(broker.spec.name, f"redis://127.0.0.1:{proxy.port}/0")
        push(through, queue, 1)
        before = proxy.round_trips
        push(through, queue, 2)
        assert proxy.round_trips == before + 1
        proxy.cut()
        until(lambda: proxy.connections == 0)

        before = proxy.round_trips
        push(through, queue, 3)
        assert proxy.round_trips == before + 2
        push(through, queue, 4)
        assert proxy.round_trips == before + 3
        assert bodies(broker.peek(queue, 9)) == ["1", "2", "3", "4"]
        through.close()


def broker_depth(server, broker, queue):
    """Return how many messages a queue has, by a connection of its own."""
    with client(server.url) as asking:
        part = "ready" if broker.spec.name == "redis" else "stream"
        name = key(broker.spec.name, queue, part)
        return asking.zcard(name) if part == "ready" else asking.xlen(name)


def consume_all(broker, queue, done, count):
    """Consume as core does, reconnecting where need be, until so many different ones are done."""
    subscription = subscribe(broker, queue)
    held = []
    while held or len(set(done)) < count:
        try:
            if not held:
                held = subscription.fetch({queue: 7}, 0.5)
                done += bodies(held)
            subscription.ack(held)
            held = []
        except ConnectionLost:
            again(subscription)
    subscription.close()
