"""The broker on servers that are wrong, hostile, or that go away."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from boost_core.plugin import BrokerUnavailable, ConnectionLost, Depth, Frame, PublishError, QueueSpec
from kafka_speaker import API_VERSIONS, KAFKA_2_2, METADATA, Speaker
from kafka_stage import PATIENCE, Stage, bodies, connected, make_broker, push, push_surely, take, until
from launcher import Proxy, free_ports

CHECK_ADDRESS = 'Start it, or say where it is: url="kafka://host:9092".'


def problem_of(url, **options):
    """Return the text of what opening raises."""
    broker = make_broker(url, **options)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.open()
    return str(caught.value).removeprefix("broker 'kafka': ")


@pytest.fixture
def proxy():
    """A proxy; its target is to be set."""
    with Proxy() as proxy:
        yield proxy


class TestWrongServers:
    """What is said where there is no Kafka, or not one that lets us in."""

    def test_nobody_there(self):
        """A port where nothing listens is told at once, and so is the remedy; several are tried."""
        one, other = free_ports(2)

        assert problem_of(f"kafka://127.0.0.1:{one}") == (
            f"no server can be reached: 127.0.0.1:{one}: Connection refused\n  {CHECK_ADDRESS}"
        )
        assert "Connection refused" in problem_of(f"kafka://127.0.0.1:{one},127.0.0.1:{other}")

    def test_answers_that_never_came(self, caplog):
        """Whoever tries again where nobody is says once that no server answers, and not that one does again."""
        (nobody,) = free_ports(1)
        broker = make_broker(f"kafka://127.0.0.1:{nobody}")

        with caplog.at_level("INFO"):
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    broker.open()

        said = [record.getMessage() for record in caplog.records]
        assert said == [f"no server of 127.0.0.1:{nobody} answers: 127.0.0.1:{nobody}: Connection refused"]

    def test_one_of_several_is_enough(self, server):
        """Servers that are away don't matter while one answers."""
        (nobody,) = free_ports(1)
        broker = make_broker(f"kafka://127.0.0.1:{nobody},127.0.0.1:{server.port}")

        broker.open()
        broker.close()

    def test_unknown_host(self):
        """A name that doesn't resolve is named."""
        assert problem_of("kafka://no.such.host.invalid:9092") == (
            "no server can be reached: no.such.host.invalid:9092: Failed to resolve 'no.such.host.invalid:9092':"
            f" Name or service not known\n  {CHECK_ADDRESS}"
        )

    def test_server_that_talks_nonsense(self, proxy):
        """What isn't Kafka is told from what is."""
        proxy.talk(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        problem = problem_of(f"kafka://127.0.0.1:{proxy.port}")

        assert problem.startswith(f"127.0.0.1:{proxy.port} answers, but not as Kafka does: ")
        assert problem.endswith(CHECK_ADDRESS)

    def test_old_server(self, queue):
        """A server whose topics have no ids is refused when queues are declared, with the oldest version that will do."""
        with Speaker(KAFKA_2_2) as speaker:
            broker = make_broker(f"kafka://127.0.0.1:{speaker.port}", timeout=2)
            broker.open()

            with pytest.raises(BrokerUnavailable) as caught:
                broker.declare([QueueSpec(name=queue)])
            broker.close()

        assert str(caught.value) == (
            f"broker 'kafka': topic '{queue}' has no id, as topics have since Kafka 2.8\n"
            "  Upgrade the servers: by its id a topic is told from a former one that was deleted."
        )

    def test_server_that_knows_of_no_server(self, children, queue):
        """One that its controller had given up is no end of a worker's process: it goes on dialling, and gets through."""
        code = """
from kafka_stage import connected, until
subscription = subscribe()
say("subscribed")
sys.stdin.readline()
connected(subscription)
say("fenced, and alive")
until(lambda: connected(subscription))
say("connected")
"""
        with Speaker({METADATA: 7, API_VERSIONS: 1}) as speaker:
            child = children(code, f"kafka://127.0.0.1:{speaker.port}", queue, queue)
            assert child.stdout.readline() == "subscribed\n"
            speaker.fenced = True
            child.stdin.write("go on\n")
            child.stdin.flush()
            assert child.stdout.readline() == "fenced, and alive\n"
            speaker.fenced = False

            assert child.stdout.readline() == "connected\n"

    def test_server_that_hangs(self):
        """One that accepts and says nothing is given up after the time-out, not before."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]

            started = time.monotonic()
            problem = problem_of(f"kafka://127.0.0.1:{port}", timeout=1)

        assert time.monotonic() - started >= 1.0
        assert problem == (
            f"no server can be reached: 127.0.0.1:{port} gave no answer within 1 s\n"
            "  Look whether the server hangs, and at what lies in between."
        )

    def test_tls_against_a_plain_port(self, server):
        """It says that TLS is on, and what to check."""
        problem = problem_of(server.url.replace("kafka:", "kafkas:"))

        assert problem.startswith(f"no server can be reached: 127.0.0.1:{server.port}: ")
        assert "SSL" in problem
        assert problem.endswith("TLS is on here; check tls, ca_file and the port.")

    def test_login_where_nobody_is_asked(self, server):
        """A server without SASL is told from a wrong password."""
        problem = problem_of(server.url, username="me", password="sesame")

        assert problem.startswith("user 'me' can't log in: ")
        assert "sesame" not in problem

    def test_logins_and_tls(self, launch, queue):
        """With the right password over TLS all is well; a wrong one, no TLS and an unknown authority are told apart."""
        sessions = {"group.min.session.timeout.ms": 3000}
        server = launch(tls=True, users={"me": "sesame"}, strangers={"you": "please"}, settings=sessions)
        ca = str(server.ca)
        url = server.url.replace("kafka:", "kafkas:")
        broker = make_broker(url, ca_file=ca, group=queue, session_timeout=3)
        broker.open()
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, "secret")
        subscription = broker.subscribe([QueueSpec(name=queue)], {}, lambda gone: None)
        assert bodies(take(subscription, queue, 1)) == ["secret"]
        subscription.close()
        hasty = make_broker(url, ca_file=ca, group=queue, session_timeout=1)
        hasty.open()
        refused = hasty.subscribe([QueueSpec(name=queue)], {}, lambda gone: None)
        with pytest.raises(BrokerUnavailable, match="the servers don't take session_timeout=1\n  They take 6 s to"):
            take(refused, queue, 1)
        refused.close()
        hasty.close()

        wrong = problem_of(url.replace("sesame", "simsim"), ca_file=ca)
        assert wrong.startswith("user 'me' can't log in: ")
        assert wrong.endswith("Check username, password and mechanism (PLAIN now).")
        assert "simsim" not in wrong
        assert problem_of(server.url, timeout=2) == (
            f"no server can be reached: 127.0.0.1:{server.port} ends connections without a word\n"
            "  TLS is off here; check tls, ca_file and the port."
        )
        assert "certificate verify failed" in problem_of(url)

        stranger = make_broker(
            server.url_for("you").replace("kafka:", "kafkas:"), ca_file=ca, group=queue, session_timeout=3
        )
        stranger.open()
        with pytest.raises(BrokerUnavailable) as caught:
            stranger.declare([QueueSpec(name=queue)])
        assert str(caught.value) == (
            f"broker 'kafka': user 'you' has no permission on topic '{queue}'\n"
            "  Allow Describe, Read, Write and Create on it."
        )
        with pytest.raises(PublishError) as refused:
            push(stranger, queue, 1)
        assert (refused.value.failed, refused.value.unsure) == ([0], [])
        barred = stranger.subscribe([QueueSpec(name=queue)], {}, lambda gone: None)
        with pytest.raises(BrokerUnavailable, match="no permission to be in group"):
            take(barred, queue, 1)
        barred.close()
        stranger.close()
        broker.close()


class TestServersGoAway:
    """Kills, stops, and cut connections."""

    def test_killed_in_the_middle_of_a_batch(self, launch, queue):
        """Frames whose report never came are unsure, by index; those of earlier batches are stored and stay so."""
        server = launch()
        stage = Stage(server.url)
        broker = stage.broker(timeout=2)
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, *range(100))

        server.pause()
        with pytest.raises(PublishError) as caught:
            broker.publish([Frame(f"{n}", queue, b"x") for n in range(5)], 1.0)
        server.kill()

        assert (caught.value.failed, caught.value.unsure) == ([], [0, 1, 2, 3, 4])
        assert caught.value.problem == "no report within 1 s: no answer"
        with pytest.raises(BrokerUnavailable, match="Connection refused"):
            until(lambda: push(broker, queue, "while it is away"))
        server.start()
        push_surely(broker, [Frame("id", queue, b"after")])
        subscription = stage.subscribe(broker, queue)
        got = bodies(take(subscription, queue, 101))
        assert {*map(str, range(100)), "after"} <= set(got) | {"x"}
        stage.close()

    def test_restart_under_load(self, launch, queue):
        """Killed with -9 and started again: what was acknowledged is run, unfinished jobs end, workers go on by themselves."""
        server = launch()
        stage = Stage(server.url)
        broker = stage.broker(timeout=5)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(16))
        held = take(subscription, queue, 16)
        stored = []

        def publish():
            for number in range(16, 300):
                push_surely(broker, [Frame("id", queue, b"%d" % number)])
                stored.append(number)

        thread = threading.Thread(target=publish)
        thread.start()
        until(lambda: len(stored) > 30)
        server.kill()
        until(lambda: broken(subscription, queue, held))
        with pytest.raises(ConnectionLost, match="no server answers: "):
            subscription.ack(held)
        server.start()
        until(lambda: connected(subscription))
        ran = set(map(int, bodies(held)))
        assert subscription.ack(held) == []
        while thread.is_alive() or not ran >= set(stored):
            got = subscription.fetch({queue: 100}, 0.5)
            ran.update(map(int, bodies(got)))
            subscription.ack(got)
        thread.join(PATIENCE)

        assert ran == set(range(300))
        until(lambda: broker.depth(queue) == Depth())
        stage.close()

    def test_hang(self, launch, queue):
        """While a server hangs no ack is taken that might be lost, and nothing is handed out; then all goes on."""
        server = launch()
        stage = Stage(server.url)
        gone = []
        broker = stage.broker(timeout=2 * PATIENCE)
        subscription = stage.subscribe(broker, queue, lost=gone.extend)
        push(broker, queue, *range(16))
        held = take(subscription, queue, 8)

        server.pause()
        assert subscription.ack(held[:1]) == []
        until(lambda: broken(subscription, queue, held))
        with pytest.raises(ConnectionLost, match="no server answers: no answer"):
            subscription.ack(held[1:])
        server.resume()
        until(lambda: connected(subscription))
        held += take(subscription, queue, 16 - len(held))

        assert sorted(map(int, bodies(held))) == list(range(16))
        assert (subscription.ack(held[1:]), gone) == ([], [])
        until(lambda: broker.depth(queue) == Depth())
        stage.close()

    @pytest.mark.parametrize("ask", ["depth", "purge"])
    def test_time_out_of_a_question(self, launch, queue, ask):
        """Whoever asks a server that hangs waits for the option 'timeout' once, however many steps there are."""
        server = launch()
        stage = Stage(server.url)
        broker = stage.broker(timeout=4)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(4))
        held = take(subscription, queue, 4)

        server.pause()
        assert subscription.ack(held) == []
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            getattr(broker, ask)(queue)
        took = time.monotonic() - started
        server.resume()

        assert took < 2 * broker.options.timeout  # the second step had one of its own
        stage.close()

    def test_end_while_a_server_hangs(self, launch, queue, caplog):
        """A subscription that can't commit any more says, when it is closed, how many messages run again."""
        server = launch()
        stage = Stage(server.url)
        broker = stage.broker(timeout=2 * PATIENCE)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(16))
        held = take(subscription, queue, 16)

        server.pause()
        assert subscription.ack(held[:8]) == []
        subscription.close()
        said = [record.getMessage() for record in caplog.records]
        server.resume()

        assert "up to 8 acknowledged messages run again, not being committed: Local: Timed out" in said
        stage.close()

    def test_outage_longer_than_the_session(self, launch, queue):
        """Workers whose sessions ended come back as who they were: nobody waits for members that will never come."""
        server = launch()
        stage = Stage(server.url)
        gone, ran, sizes = [], set(), set()
        broker = stage.broker(session_timeout=6)
        subscriptions = [stage.subscribe(broker, queue, lost=gone.extend) for _ in range(2)]
        until(lambda: stage.members() == 2)
        push(broker, queue, *range(16))
        for one in subscriptions:
            assert take(one, queue, 4)

        server.kill()
        until(lambda: len(gone) >= 8)
        server.start()
        for one in subscriptions:
            until(lambda one=one: connected(one))
        while len(ran) < 16:
            for one in subscriptions:
                got = patiently(one, queue, 16, 0.1)
                ran.update(bodies(got))
                one.ack(got)
            sizes.add(stage.members())

        assert max(sizes) == 2
        stage.close()

    def test_cut_connections(self, launch, proxy, queue):
        """Connections that are reset are made anew; nothing is lost, and nothing that runs is taken away."""
        server = launch(advertised=proxy.port)
        proxy.target = server.port
        stage = Stage(f"kafka://127.0.0.1:{proxy.port}")
        gone = []
        broker = stage.broker()
        subscription = stage.subscribe(broker, queue, lost=gone.extend)
        push(broker, queue, *range(10))
        held = take(subscription, queue, 10)

        for start in (10, 20):
            proxy.cut()
            push_surely(broker, [Frame("id", queue, b"%d" % n) for n in range(start, start + 10)])
            until(lambda: connected(subscription))
            held += patiently(subscription, queue, 10)

        assert set(map(int, bodies(held))) == set(range(30))
        assert (subscription.ack(held), gone) == ([], [])
        stage.close()

    def test_idle_worker_is_quiet(self, launch, proxy):
        """With twenty queues it has four connections at most, and asks at most five times a second."""
        server = launch(advertised=proxy.port)
        proxy.target = server.port
        stage = Stage(f"kafka://127.0.0.1:{proxy.port}")
        broker = stage.broker()
        queues = [f"idle{number}" for number in range(20)]
        subscription = stage.subscribe(broker, *queues)
        broker.publish([Frame("id", queue, b"up") for queue in queues], PATIENCE)
        for queue in queues:
            subscription.ack(take(subscription, queue, 1))

        before, started = proxy.round_trips, time.monotonic()
        assert subscription.fetch(dict.fromkeys(queues, 10), 4.0) == []
        rate = (proxy.round_trips - before) / (time.monotonic() - started)

        assert proxy.connections <= 4
        assert rate <= 5
        stage.close()


def broken(subscription, queue, held):
    """Return whether the subscription has noticed that its connection is lost; what it still hands out is held."""
    try:
        held += subscription.fetch({queue: 1}, 0.1)
    except ConnectionLost:
        return True
    return False


def patiently(subscription, queue, count, seconds=PATIENCE):
    """Take through what core takes for a reason to reconnect."""
    end = time.monotonic() + seconds
    got = []
    while len(got) < count and time.monotonic() < end:
        try:
            got += take(subscription, queue, count - len(got), end - time.monotonic())
        except ConnectionLost:
            until(lambda: connected(subscription))
    return got
