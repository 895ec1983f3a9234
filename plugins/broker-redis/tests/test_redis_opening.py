"""What both brokers find out before anything is stored."""

from __future__ import annotations

import logging
import re
import select

import pytest
from boost_core import App
from boost_core.plugin import BrokerUnavailable, Depth, Frame, PublishError, QueueSpec
from launcher import free_ports
from redis_impostor import Impostor
from redis_stage import (
    Background,
    bodies,
    build_broker,
    client,
    fetch,
    key,
    problem_of,
    push,
    subscribe,
    take,
    until,
    user,
    waiters,
)

RULES = "~boost* &boost:* +@all -@admin -@dangerous +info +config|get"


def at(url):
    """Return where errors say that a server is."""
    return re.sub(r":[^:@/]*@", ":***@", url)


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
