"""Both brokers on connections that are cut, hang, or grow old."""

from __future__ import annotations

import select
import threading

import pytest
import redis
from boost_broker_redis.address import Broken
from boost_broker_redis.script import script_of
from boost_core.plugin import BrokerUnavailable, ConnectionLost, Depth, Frame, PublishError, SettleError
from redis_impostor import Dripping, Forgetful
from redis_stage import Background, bodies, build_broker, client, fetch, key, push, subscribe, until, waiters


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
        subscription.reconnect()

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

    def test_close_while_the_server_hangs(self, broker, through, proxy, queue, caplog):
        """Closing gives up on a server that says nothing far sooner than others, tells who gets what it held, and frees a fetch."""
        patient = build_broker(broker.spec.name, through.options.url.reveal(), timeout="1m")
        subscription = subscribe(patient, queue)
        push(patient, queue, "x")
        fetch(subscription, queue)
        proxy.hang()
        waiting = Background(fetch, subscription, queue, 1, 60.0)
        until(lambda: subscription._connections._busy)

        closing = Background(subscription.close)

        assert waiting.join(5.0) == []
        closing.join(5.0)
        assert (
            "what this worker held goes to others when its lease ends: the server gives no answer within 1 s"
            in caplog.text
        )
        patient.close()

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

    def test_an_answer_in_pieces_has_one_deadline(self, name):
        """A server that sends its answer byte by byte is given up when the time is over, not so long after each."""
        with Dripping() as port:
            opening = Background(lambda: build_broker(name, f"redis://127.0.0.1:{port}/0", timeout="1s"))

            with pytest.raises(BrokerUnavailable, match="gives no answer within 1 s"):
                opening.join(3.0)

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
