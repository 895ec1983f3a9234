"""Both brokers on servers that are wrong, hostile, full, or that go away."""

from __future__ import annotations

import logging
import re
import select
import socket
import threading
from pathlib import Path

import pytest
import redis
from boost_broker_redis.address import Broken
from boost_broker_redis.checks import check
from boost_broker_redis.plugin import boost_checks
from boost_broker_redis.script import script_of
from boost_core import App
from boost_core.plugin import (
    BrokerUnavailable,
    ConnectionLost,
    Depth,
    Examined,
    Frame,
    Level,
    PublishError,
    QueueSpec,
    SettleError,
)
from launcher import free_ports
from redis_stage import (
    Background,
    bodies,
    build_broker,
    client,
    fetch,
    key,
    make_broker,
    push,
    push_surely,
    subscribe,
    take,
    until,
    waiters,
)

RULES = "~boost* &boost:* +@all -@admin -@dangerous +info +config|get"


def problem_of(name, url, **options):
    """Return the text of what opening raises."""
    with pytest.raises(BrokerUnavailable) as caught:
        build_broker(name, url, **options)
    return str(caught.value)


def at(url):
    """Return where errors say that a server is."""
    return re.sub(r":[^:@/]*@", ":***@", url)


def user(launch, *rules, name="me"):
    """Return the URL of a user of a fresh server with these rules."""
    server = launch(settings={"user": ["default on nopass ~* &* +@all", f"{name} on >sesame {' '.join(rules)}"]})
    return server.url.replace("://", f"://{name}:sesame@")


class TestOpening:
    """What is found out before anything is stored."""

    def test_nothing_listens(self, name):
        """A port where nothing listens is named with the remedy."""
        (port,) = free_ports(1)

        assert problem_of(name, f"redis://127.0.0.1:{port}/0") == (
            f"broker '{name}': the server at redis://127.0.0.1:{port}/0 refuses connections: nothing listens there\n"
            "  Mend url=, or start the server."
        )

    @pytest.mark.parametrize(
        ("login", "problem"),
        [
            ("me:wrong@", "refuses the login\n  Mend user and password in url=."),
            ("", "wants a password\n  Give user and password in url=: redis://user:password@host."),
        ],
    )
    def test_login(self, name, launch, login, problem):
        """A wrong password, or none, is told; the password isn't shown."""
        server = launch(users={"me": "sesame"})
        url = server.url.replace("me:sesame@", login)

        assert problem_of(name, url) == f"broker '{name}': the server at {at(url)} {problem}"

    def test_login_works(self, name, launch, queue, caplog):
        """A user with what the documentation names can do everything, and nothing is left unknown."""
        broker = build_broker(name, user(launch, *RULES.split()))
        subscription = subscribe(broker, queue)
        push(broker, queue, "x", delay=0.001)

        held = take(subscription, queue, 1)
        assert subscription.extend(held) == []
        assert subscription.ack(held) == []
        assert (broker.depth(queue), broker.peek(queue, 1), broker.purge(queue)) == (Depth(), [], 0)
        assert queue in broker.queues()
        assert caplog.records == []
        subscription.close()
        broker.close()

    def test_no_permission_on_a_queue(self, name, launch):
        """A queue whose keys a user may not touch is named when it is declared, published to, and fetched from."""
        prefix = key(name, "", "").partition(":")[0]
        url = user(launch, f"~{prefix}:queues", f"~{prefix}:{{mine}}*", "&boost:wake:*", "+@all")
        broker = build_broker(name, url)
        mine = subscribe(broker, "mine")
        push(broker, "mine", "x")

        with pytest.raises(
            BrokerUnavailable, match=r"refuses this user: .*\(queue 'theirs'\)\n  Allow it: ACL SETUSER"
        ):
            broker.declare([QueueSpec(name="theirs")])
        with pytest.raises(PublishError, match=r"queue 'theirs': the server at .* refuses this user") as caught:
            broker.publish([Frame("a", "theirs", b""), Frame("b", "mine", b"y")], 5.0)
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0], [])
        theirs = broker.subscribe([QueueSpec(name="theirs")], {}, lambda _: None)
        with pytest.raises(BrokerUnavailable, match="'theirs'"):
            theirs.fetch({"theirs": 1}, 0.0)
        mine.close()
        theirs.close()
        broker.close()

    def test_a_queue_without_permission_holds_up_no_other(self, name, launch, monkeypatch, caplog):
        """A worker goes on with its other queues where one is refused, says so, and serves that one once it may."""
        monkeypatch.setattr("boost_broker_redis.subscription.REFUSED_SECONDS", 0.2)
        url = user(launch, "~boost*", "&boost:*", "+@all")
        admin = client(url.replace("me:sesame@", ""))
        broker = build_broker(name, url)
        subscription = subscribe(broker, "theirs", "mine")
        push(broker, "theirs", "later")
        admin.acl_setuser("me", enabled=True, reset_keys=True, keys=[key(name, "mine", "*")])
        waiting = Background(subscription.fetch, {"theirs": 1, "mine": 1}, 60.0)
        until(lambda: "other queues go on" in caplog.text and waiters(broker, "mine") == 1)
        assert "(queue 'theirs')" in caplog.text
        assert subscription.extend([]) == []

        push(broker, "mine", "x")

        assert bodies(waiting.join()) == ["x"]
        admin.acl_setuser("me", enabled=True, keys=["boost*"])
        assert bodies(take(subscription, "theirs", 1)) == ["later"]
        for each in (subscription, broker, admin):
            each.close()

    def test_a_refusal_of_all_that_is_asked_is_told(self, name, launch):
        """Where nothing that is asked for answers, fetching fails, also with other queues at their credit."""
        url = user(launch, "~boost*", "&boost:*", "+@all")
        admin = client(url.replace("me:sesame@", ""))
        broker = build_broker(name, url)
        subscription = subscribe(broker, "free", "busy", credit={"busy": 1})
        push(broker, "busy", "held")
        held = take(subscription, "busy", 1)
        push(broker, "free", "x")
        admin.execute_command("ACL", "SETUSER", "me", "-zadd", "-zrem")

        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match=r"refuses this user: .*\(queue 'free'\)"):
                subscription.fetch({"free": 1, "busy": 1}, 0.0)

        admin.execute_command("ACL", "SETUSER", "me", "+zadd", "+zrem")
        assert bodies(subscription.fetch({"free": 1, "busy": 1}, 0.0)) == ["x"]
        assert subscription.ack(held) == []
        for each in (subscription, broker, admin):
            each.close()

    def test_a_short_refusal_is_short(self, name, launch):
        """A queue that was refused once, while another answered, is asked again soon."""
        url = user(launch, "~boost*", "&boost:*", "+@all")
        admin = client(url.replace("me:sesame@", ""))
        broker = build_broker(name, url)
        subscription = subscribe(broker, "theirs", "mine")
        push(broker, "theirs", "x")
        admin.acl_setuser("me", enabled=True, reset_keys=True, keys=[key(name, "mine", "*")])
        assert subscription.fetch({"theirs": 1, "mine": 1}, 0.0) == []

        admin.acl_setuser("me", enabled=True, keys=["boost*"])

        assert bodies(take(subscription, "theirs", 1, 6.0)) == ["x"]
        for each in (subscription, broker, admin):
            each.close()

    def test_may_not_wake(self, name, launch):
        """A user that may not use the channels is told at once: its messages would wait."""
        problem = problem_of(name, user(launch, "~boost*", "resetchannels", "+@all"))

        assert 'doesn\'t let this user wake workers\n  Allow the channels: ACL SETUSER <user> "&boost:*"' in problem

    def test_tls_against_a_plain_port(self, name, servers):
        """A plain port reached by rediss:// is told as what it is."""
        url = servers("redis").url.replace("redis://", "rediss://")

        assert problem_of(name, url, timeout=1) == (
            f"broker '{name}': the server at {url} doesn't answer in TLS within 1 s\n"
            "  A plain port is reached by redis://, not rediss://."
        )

    def test_tls(self, name, launch, queue):
        """Over TLS everything works; without its authority the certificate isn't trusted; a plain client is cut off."""
        server = launch(tls=True)
        assert "shows a certificate that isn't trusted (certificate verify failed" in problem_of(name, server.url)
        plain = problem_of(name, server.url.replace("rediss://", "redis://"))
        assert "closed the connection\n  See its log; a port for TLS is reached by rediss://." in plain
        lost = problem_of(name, f"{server.url}?ssl_ca_certs=/nowhere")
        assert "No such file" in lost

        broker = build_broker(name, f"{server.url}?ssl_ca_certs={server.ca}")
        subscription = subscribe(broker, queue)
        waiting = Background(fetch, subscription, queue, 10, 60.0)
        until(lambda: broker.depth(queue) == Depth())
        push(broker, queue, "x" * 100_000)
        assert subscription.ack(waiting.join()) == []
        subscription.close()
        broker.close()

    def test_tls_in_a_patched_process(self, name, launch, monkeypatch):
        """Where gevent has patched the process TLS is refused at once: its sockets can't go from thread to thread."""
        server = launch(tls=True)
        monkeypatch.setattr(select, "poll", lambda: None)

        problem = problem_of(name, f"{server.url}?ssl_ca_certs={server.ca}")
        assert (
            "speaks TLS, which isn't possible in a process that gevent or eventlet has patched\n  Reach it" in problem
        )

    def test_unix_socket(self, name, server, queue):
        """A unix socket is a URL like any other; one that isn't there is named."""
        broker = build_broker(name, f"unix://{server.socket_path}?db=3")
        subscription = subscribe(broker, queue)
        push(broker, queue, "x")

        assert subscription.ack(fetch(subscription, queue)) == []
        assert "can't be reached" in problem_of(name, "unix:///nowhere/redis.sock")
        subscription.close()
        broker.close()

    @pytest.mark.parametrize(("chosen", "scheme"), [("redis", "unix"), ("redis-stream", "unix-stream")])
    def test_broker_chosen_by_a_unix_socket(self, server, queue, chosen, scheme):
        """Either broker can be chosen by the URL of a unix socket, as ``BOOST_BROKER`` or a task gives it."""
        app = App("socket", broker=f"{scheme}://{server.socket_path}?db=3", store="memory")
        task = app.boost(queue)(lambda: None)
        task.push()

        assert (task.plan.broker.name, task.depth().ready) == (chosen, 1)
        app.close()

    @pytest.mark.parametrize("scheme", ["valkey", "redis-stream"])
    def test_schemes(self, name, server, scheme):
        """Any of the schemes reaches the server with either broker."""
        url = server.url.replace(server.url.partition(":")[0], scheme, 1)
        broker = build_broker(name, url)

        assert broker.where() == url
        broker.close()

    def test_databases_keep_apart(self, name, server, queue):
        """The number of a database in the URL is used."""
        one, other = build_broker(name, server.url), build_broker(name, f"{server.url[:-1]}5")
        push(other, queue, "x")

        assert [each.depth(queue).ready for each in (one, other)] == [0, 1]
        assert other.purge(queue) == 1
        one.close()
        other.close()

    def test_no_such_database(self, name, server):
        """A database that the server doesn't have is told."""
        assert "DB index is out of range" in problem_of(name, f"{server.url[:-1]}9999")

    @pytest.mark.parametrize(
        "nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01\x02garbage\r\n", b"+OK\r\n" * 9]
    )
    def test_garbage(self, name, proxy, nonsense):
        """What doesn't speak the protocol, or nonsense in it, is told; the broker isn't open."""
        proxy.talk(nonsense)

        problem = problem_of(name, f"redis://127.0.0.1:{proxy.port}", timeout=2)

        assert re.search(r"doesn't speak Redis' protocol\n  Mend url=: what listens there is something else", problem)

    def test_closed_at_once(self, name, proxy):
        """A server that closes each connection is told as one."""
        (proxy.target,) = free_ports(1)

        assert "closed the connection" in problem_of(name, f"redis://127.0.0.1:{proxy.port}", timeout=2)

    @pytest.mark.parametrize("login", ["", "me:sesame@"])
    def test_it_hangs(self, name, proxy, login):
        """A server that accepts and says nothing is given up within the time-out."""
        proxy.hang()
        opening = Background(lambda: problem_of(name, f"redis://{login}127.0.0.1:{proxy.port}", timeout=0.3))

        assert "gives no answer within 0.3 s\n  Mend url=, or start the server." in opening.join(3)

    @pytest.mark.parametrize(
        ("version", "broker_name", "needed"),
        [("5.0.7", "redis", "6.2"), ("6.0.16", "redis", "6.2"), ("6.2.14", "redis-stream", "7.0")],
    )
    def test_too_old(self, version, broker_name, needed):
        """A server that is too old is named with its version and what is needed."""
        with Impostor(f"redis_version:{version}\r\naof_enabled:1\r\nmaxmemory_policy:noeviction") as port:
            problem = problem_of(broker_name, f"redis://127.0.0.1:{port}/0")

        assert problem == (
            f"broker '{broker_name}': the server at redis://127.0.0.1:{port}/0 is Redis {version}; "
            f"Redis {needed} or newer, or Valkey, is needed\n  Upgrade the server."
        )

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            (
                {"appendonly": "no"},
                "keeps messages in memory only (appendonly no): a crash loses them\n  Set appendonly yes in its configuration",
            ),
            (
                {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"},
                "drops messages when its memory is full (maxmemory-policy allkeys-lru)\n  Set maxmemory-policy noeviction",
            ),
        ],
    )
    @pytest.mark.parametrize("kind", ["redis", "valkey"])
    def test_a_server_that_forgets(self, name, launch, queue, kind, settings, problem):
        """A server that forgets what it has confirmed is refused, unless that is accepted."""
        server = launch(kind, settings=settings)

        accept = ', or accept the loss: durability="none".'
        assert problem_of(name, server.url) == f"broker '{name}': the server at {server.url} {problem}{accept}"

        broker = build_broker(name, server.url, durability="none")
        push(broker, queue, "x")
        assert broker.depth(queue).ready == 1
        broker.close()

    def test_replica(self, name, launch):
        """A replica is refused, whatever is accepted."""
        primary = launch()
        replica = launch(settings={"replicaof": f"127.0.0.1 {primary.port}"})

        assert "is a replica, which can't be written" in problem_of(name, replica.url, durability="none")

    def test_cluster(self, name, launch):
        """A node of a cluster is refused."""
        server = launch(settings={"cluster-enabled": "yes"})

        assert "is a node of a cluster, which this broker can't use" in problem_of(name, server.url)

    @pytest.mark.parametrize(
        ("rule", "unknown"),
        [
            ("-config", "appendfsync: CONFIG"),
            ("-@dangerous", "version, appendonly and maxmemory-policy: INFO and CONFIG"),
        ],
    )
    def test_forbidden_to_ask(self, name, launch, caplog, rule, unknown):
        """Where INFO or CONFIG is forbidden, one warning says what isn't known, and it goes on."""
        with caplog.at_level(logging.WARNING):
            broker = build_broker(name, user(launch, "~*", "&*", "+@all", rule))

        (record,) = caplog.records
        assert f"doesn't say its {unknown} may not be used by this user" in record.getMessage()
        assert "sesame" not in record.getMessage()
        broker.close()

    def test_a_forbidden_config_hides_nothing_that_info_says(self, name, launch):
        """A server that forgets is refused also where CONFIG is forbidden."""
        server = launch(settings={"appendonly": "no", "user": ["default on nopass ~* &* +@all -config"]})

        assert "appendonly no" in problem_of(name, server.url)

    def test_still_loading(self, name):
        """A server that is loading its data says so."""
        with Impostor(error="LOADING Redis is loading the dataset in memory") as port:
            assert "is still loading its data" in problem_of(name, f"redis://127.0.0.1:{port}")


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


class TestConnections:
    """Connections that break."""

    @pytest.fixture
    def through(self, broker, proxy):
        """A broker of the same kind, with the proxy between."""
        proxy.target = int(broker.options.url.reveal().rpartition(":")[2].partition("/")[0])
        through = build_broker(broker.spec.name, f"redis://127.0.0.1:{proxy.port}/0", timeout=1.0)
        yield through
        through.close()

    def test_cut_while_waiting(self, broker, through, proxy, queue):
        """A fetch whose connections are cut raises; after reconnecting, receipts are still good and it goes on."""
        subscription = subscribe(through, queue)
        push(broker, queue, 1)
        held = fetch(subscription, queue)
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)

        proxy.cut()

        with pytest.raises(
            ConnectionLost, match=f"broker '{broker.spec.name}': the server at .* closed the connection"
        ):
            waiting.join()
        subscription.reconnect()
        assert subscription.extend(held) == []
        assert subscription.ack(held) == []
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: waiters(broker, queue) == 1)
        push(broker, queue, 2)
        assert bodies(waiting.join()) == ["2"]
        subscription.close()

    def test_cannot_reconnect_yet(self, through, proxy, queue):
        """While the server is away reconnecting raises each time, and publishing says that nothing was stored."""
        subscription = subscribe(through, queue)
        proxy.refuse()
        proxy.cut()

        for _ in range(3):
            with pytest.raises(ConnectionLost, match="nothing listens there"):
                subscription.reconnect()
        with pytest.raises(PublishError, match="nothing listens there") as caught:
            push(through, queue, 1, 2)
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([0, 1], [])

        proxy.accept()
        subscription.reconnect()
        push(through, queue, "x")
        assert bodies(fetch(subscription, queue)) == ["x"]
        subscription.close()

    @pytest.mark.parametrize("operation", ["ack", "release", "replace", "extend"])
    def test_cut_while_settling(self, through, proxy, queue, operation):
        """A settle on a cut connection raises, and can be repeated after reconnecting."""
        subscription = subscribe(through, queue)
        push(through, queue, 1)
        held = fetch(subscription, queue)
        settle = getattr(subscription, operation)
        what = [(held[0], Frame("n", queue, b"n"))] if operation == "replace" else held
        proxy.cut(after=1)

        with pytest.raises(ConnectionLost, match="closed the connection"):
            settle(what)

        subscription.reconnect()
        assert settle(what) == []
        subscription.close()

    def test_claimed_but_never_told(self, broker, through, proxy, queue):
        """What was claimed in a call whose answer was lost is given back by reconnecting, uncounted; the rest is kept."""
        subscription = subscribe(through, queue, f"{queue}b")
        push(broker, queue, 1)
        held = fetch(subscription, queue)
        push(broker, queue, 2, 3)
        push(broker, f"{queue}b", 4)
        proxy.cut(after=50)
        before = proxy.writes
        with pytest.raises(ConnectionLost):
            subscription.fetch({queue: 1}, 0.0)
        assert proxy.writes > before

        proxy.hang()
        lost = Background(subscription.fetch, {queue: 5, f"{queue}b": 5}, 0.0)
        with pytest.raises(ConnectionLost):
            lost.join()
        proxy.forward()  # now they are claimed
        until(lambda: broker.depth(queue).running == 3 and broker.depth(f"{queue}b").running == 1)
        subscription.reconnect()

        assert broker.depth(queue) == Depth(ready=2, running=1)
        got = [*fetch(subscription, queue), *fetch(subscription, f"{queue}b")]
        assert [(one.body, one.deaths) for one in got] == [(b"2", 0), (b"3", 0), (b"4", 0)]
        assert subscription.ack([*held, *got]) == []
        subscription.close()

    def test_cut_just_after_a_claim(self, broker, queue, monkeypatch):
        """What was claimed is handed over also where the connection breaks before this worker has left all queues."""
        subscription = subscribe(broker, queue, f"{queue}b")
        push(broker, queue, "x", delay=0.1)

        def cut(_):
            raise Broken(redis.ConnectionError("cut"))

        monkeypatch.setattr(subscription, "_strike", cut)
        got = subscription.fetch({queue: 1, f"{queue}b": 1}, 10.0)

        assert bodies(got) == ["x"]
        assert subscription.ack(got) == []
        monkeypatch.undo()
        subscription.close()

    def test_claimed_after_it_was_given_up(self, broker, through, proxy, queue):
        """A claim that the server gets only after its worker has reconnected is refused: nobody would hear of it."""
        subscription = subscribe(through, queue)
        push(broker, queue, "x")
        proxy.refuse()
        proxy.cut()
        with pytest.raises(ConnectionLost):
            fetch(subscription, queue)
        proxy.accept()
        subscription.reconnect()
        late = broker.address.dial(5.0)  # stands for a connection that was slow, with the claim on its way
        claim = ("claim", subscription._worker, 1, 1, 10000, 0, 0)
        late.send_command("EVAL", script_of(broker.LAYOUT, "claim").source, 1, broker.stem(queue), *claim)

        assert late.read_response() is None
        assert broker.depth(queue) == Depth(ready=1)
        assert bodies(fetch(subscription, queue)) == ["x"]
        late.disconnect()
        subscription.close()

    def test_close_while_the_server_hangs(self, through, proxy, queue, caplog):
        """Closing gives up on a server that says nothing, tells who gets what it held, and frees a hanging fetch."""
        subscription = subscribe(through, queue)
        push(through, queue, "x")
        fetch(subscription, queue)
        proxy.hang()
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: subscription._connections._busy)

        closing = Background(subscription.close)

        assert waiting.join(5.0) == []
        closing.join(5.0)
        assert "what this worker held goes to others when its lease ends" in caplog.text

    def test_unsure_publish_does_not_double(self, broker, through, proxy, queue):
        """A publish whose answer is lost is unsure by name, and repeating it stores nothing twice."""
        frames = [Frame(str(n), queue, b"%d" % n, dedup_id=f"{n}:1:0") for n in range(100)]
        push(through, queue, "first")
        proxy.hang()
        publishing = Background(through.publish, frames, 0.3)
        with pytest.raises(PublishError, match="gives no answer within 0.3 s") as caught:
            publishing.join()
        assert (list(caught.value.failed), list(caught.value.unsure)) == ([], list(range(100)))

        proxy.forward()
        until(lambda: broker.depth(queue).ready == 101)
        through.publish(frames, 5.0)

        assert bodies(broker.peek(queue, 500)) == ["first", *map(str, range(100))]

    def test_a_stale_connection_is_not_published_on(self, through, proxy, queue):
        """A connection that died while nobody used it is noticed before anything is sent: the publish just works."""
        push(through, queue, 1)
        opened = proxy.opened
        proxy.cut()
        until(lambda: proxy.connections == 0)

        push(through, queue, 2)

        assert proxy.opened == opened + 1
        assert bodies(through.peek(queue, 9)) == ["1", "2"]

    def test_an_idle_worker_keeps_only_what_it_needs(self, through, proxy, queue, monkeypatch):
        """Connections that publishing, fetching and settling took are closed while a worker has nothing to do."""
        subscription = subscribe(through, queue)
        push(through, queue, *range(50))
        held = fetch(subscription, queue)
        for thread in [Background(subscription.ack, [one]) for one in held]:
            assert thread.join() == []
        assert proxy.connections > 2
        monkeypatch.setattr("boost_broker_redis.connections.IDLE_SECONDS", 0.0)

        assert subscription.extend([]) == []

        until(lambda: proxy.connections == 1)  # the one that it listens on
        push(through, queue, "x")
        assert subscription.ack(fetch(subscription, queue)) == []
        subscription.close()

    def test_publishing_lets_greenlets_go_on(self, broker, queue, monkeypatch):
        """In a patched process publishing waits as the patch wants it, and keeps its deadline; workers wait natively."""
        waited = []
        original = select.poll

        def patched():
            waited.append(threading.get_ident())
            return original()

        subscription = subscribe(broker, queue)
        monkeypatch.setattr(select, "poll", patched)
        push(broker, queue, "x")
        assert set(waited) == {threading.get_ident()}
        waited.clear()

        assert subscription.ack(fetch(subscription, queue)) == []
        assert waited == []
        monkeypatch.undo()
        subscription.close()

    def test_a_server_that_has_forgotten_the_scripts(self, broker, queue):
        """A script that the server doesn't know is sent again, once for all that need it."""
        subscription = subscribe(broker, queue, f"{queue}b")
        with client(broker.options.url.reveal()) as asking:
            asking.script_flush()
            push(broker, queue, 1)
            asking.script_flush()
            assert bodies(subscription.fetch({queue: 1, f"{queue}b": 1}, 0.0)) == ["1"]
        subscription.close()

    def test_scripts_are_sent_again_by_the_same_deadline(self, name, queue):
        """A server that takes long to say that it doesn't know a script, and then hangs, is given up in the same time."""
        with Forgetful("redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction") as port:
            broker = build_broker(name, f"redis://127.0.0.1:{port}/0")
            publishing = Background(broker.publish, [Frame("id", queue, b"")], 2.0)

            with pytest.raises(PublishError, match="gives no answer within 2 s") as caught:
                publishing.join(3.0)

            assert (list(caught.value.failed), list(caught.value.unsure)) == ([], [0])
            broker.close()

    def test_settle_error_names_what_is_left(self, broker, queue):
        """Where the server refuses to settle a queue, that queue's deliveries are named, and can be settled later."""
        subscription = subscribe(broker, queue, f"{queue}b")
        push(broker, queue, 1)
        push(broker, f"{queue}b", 2)
        held = subscription.fetch({queue: 1, f"{queue}b": 1}, 0.0)
        hurt = key(broker.spec.name, f"{queue}b", "own:" if broker.spec.name == "redis" else "stream")
        with client(broker.options.url.reveal()) as asking:
            if broker.spec.name == "redis":
                (hurt,) = asking.scan_iter(f"{hurt}*")
            asking.rename(hurt, "aside")
            asking.set(hurt, "x")
            with pytest.raises(SettleError, match="has other programs' keys") as caught:
                subscription.ack(held)
            asking.rename("aside", hurt)

        assert [one.body for one in caught.value.failed] == [b"2"]
        assert subscription.ack(caught.value.failed) == []
        assert broker.depth(queue) == broker.depth(f"{queue}b") == Depth()
        subscription.close()


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


def again(subscription):
    """Reconnect as soon as it can be done."""
    while True:
        try:
            return subscription.reconnect()
        except ConnectionLost:
            threading.Event().wait(0.02)


class TestChecks:
    """What ``boost doctor`` says of a server."""

    def findings(self, name, url, **options):
        """Return the findings of a broker that may not even open."""
        broker = make_broker(name, url, **options)
        found = [(each.level, each.text) for each in check(Examined(broker=broker)) if "round trip" not in each.text]
        broker.close()
        return found

    def test_a_good_server(self, name, server):
        """A good one is described in a line."""
        (level, text), *more = self.findings(name, server.url)

        assert (level, more) == (Level.OK, [])
        assert re.fullmatch(
            r"(Redis|Valkey) [\d.]+, appendonly yes, appendfsync everysec, maxmemory-policy noeviction", text
        )
        assert name in {each.broker for each in boost_checks()}

    def test_a_bad_server(self, name, launch):
        """What may lose messages is a danger, and a warning where it was accepted."""
        server = launch(settings={"appendonly": "no", "maxmemory-policy": "volatile-ttl"})

        for options, level in (({}, Level.DANGER), ({"durability": "none"}, Level.WARNING)):
            assert self.findings(name, server.url, **options)[1:] == [
                (level, "it keeps messages in memory only (appendonly no): a crash loses them"),
                (level, "it drops messages when its memory is full (maxmemory-policy volatile-ttl)"),
            ]

    def test_what_a_user_may_not_store(self, name, launch):
        """Queues are tried: a command that is missing, or a foreign key, is a danger. Nothing is left behind."""
        url = f"{name}{user(launch, '~boost*', '&boost:*', '+@all', '-zadd', '-xadd')[5:]}"
        free = url.replace("me:sesame@", "")
        taken = key(name, "taken", "ready" if name == "redis" else "stream")
        with client(f"redis{free[len(name) :]}") as asking:
            asking.set(taken, "x")
            forbidden, allowed = self.dangers(url, "free", "taken"), self.dangers(free, "free", "taken")
            left = asking.keys()

        assert [text.partition(" refuses this user: ")[2][-14:] for text in forbidden] == ["(queue 'free')"]
        assert [text.partition(" has other programs' keys ")[2] for text in allowed] == [
            "where a queue's should be (queue 'taken')"
        ]
        assert left == [taken]

    def dangers(self, url, *queues):
        """Return what is dangerous for tasks on queues."""
        app = App("doubtful", broker=url, store="memory")
        plans = tuple(app.boost(queue)(lambda: None).plan for queue in queues)
        broker = app.services.broker(plans[0].broker, plans[0].broker_options)
        found = [each.text for each in check(Examined(broker=broker, plans=plans)) if each.level is Level.DANGER]
        app.close()
        return found

    def test_a_log_that_reached_no_disk(self, name):
        """A server that failed to write its log is a danger, and isn't worked on; one that can't rewrite it, a warning."""
        good = "redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction"
        with Impostor(f"{good}\r\naof_last_write_status:err\r\naof_last_bgrewrite_status:err") as port:
            problem = problem_of(name, f"redis://127.0.0.1:{port}")
            found = self.findings(name, f"redis://127.0.0.1:{port}")

        text = "couldn't write its log (aof_last_write_status err): a crash loses what isn't on its disk"
        assert f"{text}\n  Make room on its disk, and see its log; or accept the loss" in problem
        assert (Level.DANGER, f"it {text}") in found
        assert (Level.WARNING, "it couldn't rewrite its log, which grows on (aof_last_bgrewrite_status err)") in found

    def test_age_of_the_last_snapshot(self, name, launch, queue):
        """Where snapshots are all there is, their age is told and what has changed since; one that failed is a warning."""
        server = launch(settings={"appendonly": "no"})
        broker = build_broker(name, server.url, durability="none")
        push(broker, queue, "x")
        broker.close()
        before = self.findings(name, server.url, durability="none")
        with client(server.url) as asking:
            Path(asking.config_get("dir")["dir"], "dump.rdb", "in the way").mkdir(parents=True)
            asking.bgsave()
            until(lambda: asking.info("persistence")["rdb_last_bgsave_status"] == "err")
        after = self.findings(name, server.url, durability="none")

        assert re.search(r"noeviction, \d+ changes since its last snapshot or start 0:0\d:\d\d ago$", before[0][1])
        failed = (Level.WARNING, "it couldn't write its last snapshot (rdb_last_bgsave_status err)")
        assert (failed in before, failed in after) == (False, True)

    def test_doubts(self, name, launch):
        """What reaches the disk late, and what isn't said, are warnings."""
        late = launch(settings={"appendfsync": "no"})
        secret = user(launch, "~*", "&*", "+@all", "-config")

        assert [level for level, _ in self.findings(name, late.url)] == [Level.OK, Level.WARNING]
        assert [level for level, _ in self.findings(name, secret)] == [Level.OK, Level.WARNING]

    def test_clock(self, name):
        """A server whose clock is far from this machine's is told."""
        with Impostor("redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction") as port:
            found = self.findings(name, f"redis://127.0.0.1:{port}")

        assert any(re.match(r"its clock is \d+\.\d s behind this machine's", text) for _, text in found)


class Impostor:
    """A server that answers what it is told to be: an INFO, a clock of long ago, or the same error to everything."""

    def __init__(self, info="", error=""):
        self._info, self._error = info, error
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self._door.getsockname()[1]

    def __exit__(self, *error):
        self._door.close()

    def _serve(self):
        while True:
            try:
                connection = self._door.accept()[0]
            except OSError:
                return
            with connection:
                while told := connection.recv(65536):
                    connection.sendall(b"".join(map(self._answer, re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", told))))

    def _answer(self, command):
        if self._error:
            return f"-{self._error}\r\n".encode()
        info = self._info.encode()
        answers = {
            b"TIME": b"*2\r\n$10\r\n1500000000\r\n$1\r\n0\r\n",
            b"INFO": b"$%d\r\n%b\r\n" % (len(info), info),
            b"CONFIG": b"*2\r\n$11\r\nappendfsync\r\n$8\r\neverysec\r\n",
        }
        return answers.get(command, b":0\r\n")


class Forgetful(Impostor):
    """One that says after 1.5 s that it doesn't know a script, and nothing more once it is told."""

    def _answer(self, command):
        if command == b"EVALSHA":
            threading.Event().wait(1.5)
            return b"-NOSCRIPT No matching script.\r\n"
        return b"" if command == b"EVAL" else super()._answer(command)
