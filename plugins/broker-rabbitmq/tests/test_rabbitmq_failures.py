"""Servers that can't be used or fail, connections that break, processes that die."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import threading

import pytest
from boost_core.plugin import BrokerUnavailable, ConnectionLost, Depth, Frame, PublishError, QueueSpec
from rabbitmq_stage import SLEEP, Worker, bodies, make_broker, push, push_error, subscribe, take, until

FORK = "if not os.fork():\n    broker.after_fork()\n    time.sleep(60)\n"
C_FORK = "import ctypes\nif not ctypes.CDLL(None).fork():\n    time.sleep(60)\n"


def refusal(url, **options):
    """Return what opening a broker says."""
    with pytest.raises(BrokerUnavailable) as caught:
        make_broker(url, **options).open()
    return str(caught.value)


def greeting(version):
    """Return what a server says first, as AMQP has it."""

    def text(value):
        return struct.pack(">I", len(value)) + value

    table = b"".join(
        bytes([len(name)]) + name + b"S" + text(value)
        for name, value in ((b"product", b"RabbitMQ"), (b"version", version))
    )
    payload = struct.pack(">HHBB", 10, 10, 0, 9) + text(table) + text(b"PLAIN") + text(b"en_US")
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


class TestDialling:
    """What keeps a server from being used is said with its remedy, within the time-out."""

    def test_nothing_listens(self, server):
        """The place and the URL are named."""
        assert refusal("amqp://me:secret@127.0.0.1:9/") == (
            "broker 'rabbitmq': nothing listens at 127.0.0.1:9\n"
            "  Start RabbitMQ there, or correct the url amqp://me:***@127.0.0.1:9/; the usual port is 5672."
        )

    def test_an_unknown_host(self):
        """The resolver's own words are kept."""
        assert "the host of no-such-host.invalid:5672 isn't known:" in refusal("amqp://no-such-host.invalid/")

    def test_a_wrong_password(self, server):
        """User and place are named, the password isn't."""
        place = f"127.0.0.1:{server.port}"

        assert refusal(f"amqp://guest:wrong@{place}/") == (
            f"broker 'rabbitmq': {place} refused the login of user 'guest': wrong user or password\n"
            f"  Correct the url amqp://guest:***@{place}/. The user guest may log in on the server's own host only."
        )

    def test_a_vhost_that_is_not_there(self, server):
        """The command that makes it is given."""
        said = refusal(f"{server.url.rpartition('/')[0]}/my%2Fown")

        assert f"127.0.0.1:{server.port} has no vhost 'my/own'" in said
        assert "rabbitmqctl add_vhost my/own" in said

    def test_a_vhost_that_one_may_not_use(self, server):
        """So is the command that gives the right."""
        server.control("add_vhost", "private")

        said = refusal(f"{server.url.rpartition('/')[0]}/private")

        assert f"user 'guest' may not use the vhost 'private' of 127.0.0.1:{server.port}" in said
        assert "rabbitmqctl set_permissions -p private guest '.*' '.*' '.*'" in said

    def test_a_user_without_rights(self, server, build, broker, queue):
        """What may not be made, written and read is named, with the user and the vhost."""
        stranger = build(server.url_for("stranger"))
        broker.declare([QueueSpec(name=queue)])
        cases = [
            (lambda: stranger.declare([QueueSpec(name="new")]), "may not configure queue 'new' in vhost '/'"),
            (lambda: subscribe(stranger, queue), f"may not read queue '{queue}' in vhost '/'"),
            (lambda: stranger.purge(queue), f"may not read queue '{queue}' in vhost '/'"),
        ]

        for use, said in cases:
            with pytest.raises(BrokerUnavailable, match=f"user 'stranger' {said}") as caught:
                use()
            assert "rabbitmqctl set_permissions -p / stranger" in str(caught.value)
        error = push_error(stranger, queue, 1, 2)

        assert error.problem == "user 'stranger' may not write to exchange 'amq.default' in vhost '/'"
        assert (error.failed, error.unsure) == ([0, 1], [])

    def test_tls(self, server, build, queue):
        """With the authority's certificate it works, large messages too, and without it says which option is missing."""
        broker = build(server.secure_url, tls_ca=str(server.authority))
        subscription = subscribe(broker, queue)
        broker.publish([Frame("a", queue, b"x" * 3_000_000), Frame("b", queue, b"y")], 10.0)

        assert [len(delivery.body) for delivery in take(subscription, 2, queue)] == [3_000_000, 1]
        said = refusal(server.secure_url)
        assert "can't be trusted: " in said
        assert "option tls_ca" in said

    def test_tls_files_that_cannot_be_used(self, server):
        """They are named."""
        assert "TLS can't be set up with '/nowhere.pem'" in refusal(server.secure_url, tls_ca="/nowhere.pem")

    def test_tls_against_a_plain_port_and_the_other_way_round(self, server):
        """Each says which scheme would be right."""
        port = server.secure_url.rpartition(":")[2]

        assert refusal(server.url.replace("amqp://", "amqps://")) == (
            f"broker 'rabbitmq': TLS with 127.0.0.1:{server.port} failed: wrong version number\n"
            "  Write amqp:// where the port speaks no TLS; the usual port with TLS is 5671."
        )
        assert refusal(f"amqp://guest:guest@127.0.0.1:{port}") == (
            f"broker 'rabbitmq': 127.0.0.1:{port.strip('/')} speaks TLS, and was spoken to without\n"
            "  Write amqps:// instead of amqp://."
        )

    @pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00\x00\x00\x00\x04junk\xce"])
    def test_garbage(self, proxy, nonsense):
        """What answers in another protocol is quoted, or told as what it breaks."""
        proxy.talk(nonsense)

        said = refusal(proxy.url)

        assert f"127.0.0.1:{proxy.port} " in said
        assert "isn't AMQP 0-9-1" in said or "can't be used" in said

    def test_an_old_server(self, proxy):
        """Its version is named, and the oldest that will do."""
        proxy.talk(greeting(b"3.9.13"))

        assert refusal(proxy.url, timeout=1) == (
            f"broker 'rabbitmq': 127.0.0.1:{proxy.port} is RabbitMQ 3.9.13; it must be RabbitMQ 3.10 or later\n"
            "  Upgrade the server: delays and times to live rest on what came then."
        )

    def test_a_server_that_hangs(self, proxy):
        """It is given up after the time-out."""
        proxy.hang()

        assert f"127.0.0.1:{proxy.port} didn't answer in time" in refusal(proxy.url, timeout=0.3)

    def test_several_hosts(self, server, proxy, build, queue):
        """One that is down, and one that hangs, leave the third; where all are down each one's trouble is told."""
        proxy.hang()
        broker = build(f"amqp://guest:guest@127.0.0.1:9,127.0.0.1:{proxy.port},127.0.0.1:{server.port}/", timeout=3)
        subscription = subscribe(broker, queue)
        push(broker, queue, 1)

        assert bodies(take(subscription, 1, queue)) == ["1"]
        said = refusal("amqp://127.0.0.1:9,127.0.0.1:10/")
        assert "nothing listens at 127.0.0.1:9" in said
        assert "nothing listens at 127.0.0.1:10" in said


class TestPublishing:
    """Connections that break, servers that hang or are short of disk."""

    def test_a_dead_connection_is_replaced(self, proxy, build, queue, broker):
        """A push that finds its connection cut dials anew."""
        publisher = build(proxy.url)
        publisher.declare([QueueSpec(name=queue)])
        for number in range(3):
            proxy.cut()
            until(lambda: proxy.connections == 0)
            push(publisher, queue, number)

        assert broker.depth(queue).ready == 3

    def test_a_connection_cut_in_a_batch(self, proxy, build, queue, broker):
        """What isn't confirmed is unsure, all else is stored: nothing is taken for failed that may be there."""
        publisher = build(proxy.url)
        publisher.declare([QueueSpec(name=queue)])
        push(publisher, queue, "first")
        proxy.cut(after=200_000)

        with pytest.raises(PublishError, match="the connection was lost") as caught:
            publisher.publish([Frame(str(n), queue, b"%d " % n + b"x" * 5000) for n in range(100)], 10.0)
        error = caught.value
        subscription = subscribe(broker, queue)
        stored = {
            int(delivery.body.split()[0]) for delivery in self.drained(subscription, queue) if b" " in delivery.body
        }

        assert error.failed == []
        assert set(range(100)) - set(error.unsure) <= stored < set(range(100))

    def drained(self, subscription, queue):
        """Return all that is there."""
        found = []
        while more := subscription.fetch({queue: 1000}, 1.0):
            found += more
        return found

    def test_a_server_that_hangs(self, proxy, build, queue, broker):
        """The push ends by its deadline; what was sent is unsure. The next one dials anew."""
        publisher = build(proxy.url)
        publisher.declare([QueueSpec(name=queue)])
        push(publisher, queue, 1)
        proxy.hang()

        error = push_error(publisher, queue, 2, 3, timeout=0.3)
        proxy.forward()
        push(publisher, queue, 4)

        assert (error.problem, error.failed, error.unsure) == ("the server didn't confirm in time", [], [0, 1])
        assert broker.depth(queue).ready >= 2

    def test_nothing_listens_any_more(self, proxy, build, queue):
        """The whole batch has surely failed."""
        publisher = build(proxy.url)
        publisher.declare([QueueSpec(name=queue)])
        proxy.refuse()
        proxy.cut()
        until(lambda: proxy.connections == 0)

        error = push_error(publisher, queue, 1, 2)

        assert (error.problem, error.failed) == (f"nothing listens at 127.0.0.1:{proxy.port}", [0, 1])

    def test_an_alarm(self, server, build, queue, broker, subscription):
        """Pushes fail by their deadline and say why; once it is known nothing is sent that could be stored later.

        Workers go on, ``boost doctor`` tells of it, and when it is over pushes succeed.
        """
        push(broker, queue, "before")
        server.alarm("disk")
        try:
            first = push_error(broker, queue, 1, timeout=0.3)
            second = push_error(broker, queue, 2, timeout=0.3)
            held = take(subscription, 1, queue)
            assert subscription.ack(held) == []
            doctor = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "from boost_core.cli.launcher import main; main()",
                    "doctor",
                    "--broker",
                    server.url,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            server.alarm("disk", on=False)
        push(broker, queue, 3)

        said = "the server takes no messages: low on disk (memory or disk alarm)"
        assert (first.problem, first.failed, first.unsure) == (said, [], [0])
        assert (second.problem, second.failed, second.unsure) == (said, [0], [])
        assert (doctor.returncode, said in doctor.stdout) == (5, True), doctor.stdout + doctor.stderr
        assert "2" not in bodies(take(subscription, 2, queue))

    def test_a_worker_that_starts_under_an_alarm(self, server, build, queue, broker):
        """It makes the queue that is missing, and does what waits in the others."""
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, "before")
        server.alarm("disk")
        try:
            subscription = subscribe(build(server.url), queue, f"{queue}.new")
            held = take(subscription, 1, queue, f"{queue}.new")
            assert subscription.ack(held) == []
        finally:
            server.alarm("disk", on=False)

        assert bodies(held) == ["before"]
        assert broker.depth(f"{queue}.new") == Depth()


class TestConsuming:
    """What was held when a connection ended is somebody else's."""

    def test_a_cut_connection(self, proxy, build, queue, broker):
        """What core holds is told as lost before the error comes; what it does with it later is refused; then it goes on."""
        lost = []
        subscription = subscribe(build(proxy.url), queue, lost=lost.extend)
        push(broker, queue, *range(4))
        held = take(subscription, 2, queue)
        proxy.cut()

        with pytest.raises(ConnectionLost, match=f"the connection to 127.0.0.1:{proxy.port} was lost"):
            while True:
                subscription.fetch({queue: 1}, 30.0)
        assert sorted(map(id, lost)) == sorted(map(id, held))
        assert subscription.ack(held) == held
        assert subscription.release(held) == held

        subscription.reconnect()
        again = take(subscription, 4, queue)
        assert sorted(bodies(again)) == ["0", "1", "2", "3"]
        assert subscription.ack(again) == []
        until(lambda: broker.depth(queue) == Depth())

    def test_a_blocked_fetch_learns_of_it(self, proxy, build, queue):
        """The error comes at once, not after the fetch's time."""
        subscription = subscribe(build(proxy.url), queue)
        errors = []

        def fetch():
            try:
                subscription.fetch({queue: 1}, 600.0)
            except ConnectionLost as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        proxy.cut()
        thread.join(30)

        assert len(errors) == 1

    def test_a_silent_connection(self, proxy, build, queue, broker):
        """Two heartbeats without a word end it, and another worker has what was held."""
        lost = []
        subscription = subscribe(build(proxy.url, heartbeat=1), queue, lost=lost.extend)
        push(broker, queue, 1)
        held = take(subscription, 1, queue)
        proxy.hang()

        assert until(lambda: lost) == held
        with pytest.raises(ConnectionLost, match="Too many heartbeats missed"):
            subscription.fetch({queue: 1}, 30.0)
        assert bodies(take(subscribe(broker, queue), 1, queue)) == ["1"]

    @pytest.mark.parametrize("busy", [False, True])
    def test_closing_where_the_server_hangs(self, proxy, build, queue, busy):
        """It isn't waited for as long as an answer may take, also where another thread is waiting for one."""
        subscription = subscribe(build(proxy.url, timeout=600, heartbeat=600), queue)
        proxy.hang()
        closing = threading.Thread(target=subscription.close, daemon=True)
        asking = threading.Thread(target=subscription.shut, args=([queue],), daemon=True)

        if busy:
            asking.start()
        closing.start()

        until(lambda: not closing.is_alive() and not asking.is_alive())

    def test_reconnecting_fails_until_the_server_is_back(self, proxy, build, queue):
        """Each call tells why; the one that succeeds makes the queue anew that went missing."""
        subscription = subscribe(build(proxy.url), queue)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(ConnectionLost):
            while True:
                subscription.fetch({queue: 1}, 30.0)

        with pytest.raises(BrokerUnavailable, match=f"nothing listens at 127.0.0.1:{proxy.port}"):
            subscription.reconnect()
        proxy.accept()
        subscription.reconnect()

        assert subscription.fetch({queue: 1}, 0.1) == []

    def test_the_consumer_timeout(self, server, build, broker, queue, caplog):
        """What is held for longer than the server allows is told as lost, and the log says what to do."""
        server.control("eval", "application:set_env(rabbit, consumer_timeout, 500),"
                               "application:set_env(rabbit, channel_tick_interval, 200).")  # fmt: skip
        lost = []
        try:
            subscription = subscribe(broker, queue, f"{queue}2", lost=lost.extend)
            push(broker, queue, "long")
            held = take(subscription, 1, queue)
            until(lambda: lost)
        finally:
            server.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000),"
                                   "application:set_env(rabbit, channel_tick_interval, 60000).")  # fmt: skip
        push(broker, f"{queue}2", "other")

        assert (lost, subscription.ack(held)) == (held, held)
        assert bodies(take(subscription, 1, f"{queue}2")) == ["other"]
        assert f"queue '{queue}': the server took 1 messages back" in caplog.text
        assert "Raise consumer_timeout in rabbitmq.conf" in caplog.text

    @pytest.mark.parametrize(("longest", "warned"), [(None, True), (7200.0, True), (600.0, False)])
    def test_long_jobs_are_warned_of(self, broker, queue, caplog, longest, warned):
        """Where the server would take their messages back before they end."""
        with caplog.at_level(logging.WARNING):
            subscribe(broker, queue, longest_timeout=longest)

        assert (f"jobs of '{queue}' may take longer than RabbitMQ" in caplog.text) == warned


class TestCluster:
    """One of two nodes is killed and started again."""

    def test_the_node_of_a_classic_queue(self, cluster, build, queue, caplog):
        """Pushes to it say what to do, the other queues go on, and it is served again once its node is back."""
        first, second = cluster
        away, here = f"{queue}.away", f"{queue}.here"
        build(second.url, queue_type="classic").declare([QueueSpec(name=away)])
        broker = build(first.url, queue_type="classic")
        subscription = subscribe(broker, here, away)
        push(broker, away, 1)

        second.kill()
        until(lambda: subscription.fetch({here: 1, away: 0}, 0.1) or "left alone until its node is back" in caplog.text)
        error = push_error(broker, away, 2)
        with pytest.raises(BrokerUnavailable, match=f"queue '{away}' in vhost '/' is down or inaccessible"):
            broker.depth(away)
        push(broker, here, "on")
        assert bodies(take(subscription, 1, here, away)) == ["on"]
        second.start()

        assert error.failed == [0]
        assert f"home node '{second.node}' of durable queue '{away}'" in error.problem
        assert "Start that node" in error.problem
        assert bodies(take(subscription, 1, here, away)) == ["1"]
        push(broker, away, 3)
        assert bodies(take(subscription, 1, here, away)) == ["3"]

    def test_the_node_of_a_worker(self, cluster, build, queue, monkeypatch):
        """It dials the next one that its URL names."""
        monkeypatch.setattr("random.shuffle", lambda hosts: hosts.sort(key=lambda host: host[1] != second.port))
        first, second = cluster
        broker = build(f"amqp://guest:guest@127.0.0.1:{first.port},127.0.0.1:{second.port}/", queue_type="classic")
        build(first.url, queue_type="classic").declare([QueueSpec(name=queue)])
        subscription = subscribe(broker, queue)
        push(broker, queue, 1)
        take(subscription, 1, queue)

        second.kill()
        with pytest.raises(ConnectionLost, match=f"the connection to 127.0.0.1:{second.port} was lost"):
            while True:
                subscription.fetch({queue: 1}, 30.0)
        subscription.reconnect()
        push(broker, queue, 2)

        assert sorted(bodies(take(subscription, 2, queue))) == ["1", "2"]
        second.start()


class TestProcesses:
    """Workers that are killed with -9 while they hold sixteen messages."""

    @pytest.mark.parametrize("script", [SLEEP, FORK + SLEEP, C_FORK + SLEEP], ids=["alone", "forked", "forked-in-c"])
    def test_a_killed_worker(self, server, broker, queue, script):
        """Another one has them all: at once where no child keeps the connection, else after two heartbeats."""
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, *range(16))
        with Worker(server.url, queue, script) as worker:
            subscription = subscribe(broker, queue)
            assert subscription.fetch({queue: 16}, 0.2) == []
            worker.kill()

            found = take(subscription, 16, queue)

        assert sorted(map(int, bodies(found))) == list(range(16))

    def test_the_server_is_killed_when_others_have_just_made_the_queues(self, server, build, queue, patience):
        """What a process pushed that found them there isn't lost either."""
        names = [f"{queue}-{number}" for number in range(25)]
        build(server.url).declare([QueueSpec(name=name) for name in names])
        other = build(server.url)
        subscription = subscribe(other, *names)
        for name in names:
            push(other, name, name)

        server.kill()
        server.start()
        self.reconnect(subscription)

        assert sorted(bodies(take(subscription, 25, *names))) == sorted(names)

    def test_the_server_is_killed_under_load(self, server, build, queue, patience):
        """What was confirmed before and after comes, delayed ones too; workers go on by themselves as core has them do."""
        broker = build(server.url, timeout=5)
        subscription = subscribe(broker, queue)
        stored, stop, came = set(), threading.Event(), set()

        def publish():
            number = 0
            while not stop.is_set():
                batch = range(number, number + 20)
                try:
                    push(broker, queue, *batch, timeout=5.0, delay=1.0 if number % 100 == 0 else 0.0)
                    stored.update(batch)
                except PublishError as error:
                    stored.update(set(batch) - {batch[n] for n in (*error.failed, *error.unsure)})
                number += 20

        def fetch():
            try:
                deliveries = subscription.fetch({queue: 50}, 0.2)
            except (ConnectionLost, BrokerUnavailable):
                self.reconnect(subscription)
            else:
                subscription.ack(deliveries)
                came.update(map(int, bodies(deliveries)))

        publisher = threading.Thread(target=publish)
        publisher.start()
        until(lambda: fetch() or len(came) > 500)
        server.kill()
        before = max(stored)
        server.start()
        until(lambda: fetch() or max(stored) > before + 200)
        stop.set()
        publisher.join()
        until(lambda: fetch() or stored <= came)

    def reconnect(self, subscription):
        """Dial until the server is back, as core does."""

        def back():
            try:
                subscription.reconnect()
            except BrokerUnavailable:
                return False
            return True

        until(back)
