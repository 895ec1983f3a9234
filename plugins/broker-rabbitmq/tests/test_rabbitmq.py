"""The broker through its contract, on a real server."""

from __future__ import annotations

import os
import threading

import amqp
import pytest
from boost_core.plugin import (
    BadOption,
    BrokerUnavailable,
    Closed,
    Depth,
    Frame,
    PublishError,
    QueueGone,
    QueueKind,
    QueueSpec,
    UnsupportedCapability,
)
from launcher import available
from rabbitmq_stage import MOST, bodies, declare, make_broker, push, push_error, subscribe, take, until


def test_a_server_can_be_had():
    """A server that can't be had fails the run where everything must be proven."""
    reason = available("rabbitmq")

    assert reason is None or os.environ.get("CI") != "true"


class TestOptions:
    """What can be said wrongly is said to be wrong before anything is dialled."""

    @pytest.mark.parametrize(
        ("name", "value", "problem"),
        [
            ("url", "redis://here/", "it must start with amqp:// or amqps://"),
            ("url", "here", "it must start with amqp:// or amqps://"),
            ("url", "amqp://u:p/w?@here/", "write / ? # in a password as %2F %3F %23"),
            ("url", "amqp://u:p/w@here/", "write / ? # in a password as %2F %3F %23"),
            ("url", "amqp://u:x@p/w@here/", "write / ? # in a password as %2F %3F %23"),
            ("url", "amqp://u:p/w", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("url", "amqp://one:port/", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("url", "amqp://one:5672:3/", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("url", "amqp://one,two:0/", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("url", "amqp://one:65536/", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("url", "amqp://[::1/", "write amqp://user:password@host:port/vhost, with a port of 1 to 65535"),
            ("queue_type", "stream", "it is 'quorum' or 'classic'"),
            ("priorities", 256, "it is 1 to 255"),
            ("heartbeat", "500ms", "it is whole seconds, 1 or more"),
            ("timeout", 0, "it must be over 0"),
        ],
    )
    def test_bad_ones(self, name, value, problem):
        """Each names the option and what it may be."""
        with pytest.raises(BadOption, match=name) as caught:
            make_broker(**{"url": "amqp://here/", name: value})

        assert problem in str(caught.value)
        assert "p/w" not in str(caught.value)
        assert "u:p" not in str(caught.value)

    def test_the_password_never_shows(self):
        """Not in the place that logs name, nor in the options."""
        broker = make_broker("amqp://me:s3cret@one,two:5673/v")

        assert broker.where() == "amqp://me:***@one,two:5673/v"
        assert "s3cret" not in repr(broker.options) + repr(broker.address)


class TestPublishing:
    """Batches, and exactly what isn't stored of them."""

    def test_only_those_over_the_limit_fail(self, broker, queue, subscription):
        """The others of the batch are stored; the error names the indexes, the size and the option."""
        frames = [Frame("a", queue, b"1"), Frame("b", queue, bytes(50_000_000)), Frame("c", queue, b"3")]

        with pytest.raises(PublishError) as caught:
            broker.publish(frames, 10.0)

        assert (caught.value.failed, caught.value.unsure) == ([1], [])
        assert caught.value.problem == "its body has 50,000,000 bytes; the option max_body is 16,777,216"
        assert bodies(take(subscription, 2, queue)) == ["1", "3"]

    def test_a_body_of_50_megabytes(self, server, build, queue):
        """It goes through where the option allows it, and comes whole."""
        broker = build(server.url, max_body=2 * MOST)
        subscription = subscribe(broker, queue)
        body = os.urandom(1_000_000) * 50

        broker.publish([Frame("big", queue, body)], 20.0)

        assert take(subscription, 1, queue)[0].body == body

    def test_a_body_that_the_server_refuses(self, server, build, queue):
        """It closes the channel for it: that message and those after it aren't stored, which the error says."""
        broker = build(server.url, max_body=2 * MOST)
        broker.declare([QueueSpec(name=queue)])
        frames = [Frame("a", queue, bytes(MOST + 1)), Frame("b", queue, b"2")]

        with pytest.raises(PublishError) as caught:
            broker.publish(frames, 20.0)
        push(broker, queue, "after")

        assert (caught.value.failed, caught.value.unsure) == ([0, 1], [])
        assert caught.value.problem == f"message size {MOST + 1} is larger than configured max size {MOST}"
        assert bodies(take(subscribe(broker, queue), 1, queue)) == ["after"]

    def test_messages_without_a_queue(self, broker, queue):
        """The server gives them back, and they fail alone."""
        broker.declare([QueueSpec(name=queue)])
        frames = [Frame(str(number), queue if number % 2 else "nowhere", b"x") for number in range(7)]

        with pytest.raises(PublishError) as caught:
            broker.publish(frames, 10.0)

        assert (caught.value.failed, caught.value.unsure) == ([0, 2, 4, 6], [])
        assert caught.value.problem == "its queue doesn't exist"
        assert broker.depth(queue).ready == 3

    def test_a_declared_queue_that_is_gone_is_made_anew(self, broker, queue, channel):
        """A push that finds its queue deleted makes it again."""
        broker.declare([QueueSpec(name=queue)])
        channel.queue_delete(queue)

        push(broker, queue, 1, 2)

        assert broker.depth(queue).ready == 2

    def test_a_full_queue(self, broker, queue, channel):
        """What the server refuses by basic.nack fails, and nothing else."""
        declare(channel, queue, x_max_length=2, x_overflow="reject-publish")

        error = push_error(broker, queue, *range(5))

        assert (error.failed, error.unsure) == ([2, 3, 4], [])
        assert error.problem == "the server refused it (basic.nack): its queue is full or out of order"

    def test_refusals_come_before_anything_is_stored(self, broker, queue, subscription):
        """Keys are refused, priorities of quorum queues too."""
        plain = Frame("a", queue, b"plain")
        for odd, capability in (
            (Frame("b", queue, b"x", key="k"), "key_ordered"),
            (Frame("c", queue, b"x", 1), "priority"),
        ):
            with pytest.raises(UnsupportedCapability, match=f"has no capability '{capability}'"):
                broker.publish([plain, odd], 5.0)

        assert broker.depth(queue) == Depth()

    def test_a_young_queue(self, broker, queue, patience):
        """A push isn't done before the server is sure to keep the queue as well; where it has no time, it is unsure."""
        broker.declare([QueueSpec(name=queue)])

        error = push_error(broker, queue, 1, timeout=0.1)
        push(broker, queue, 2)
        push(broker, queue, 3, timeout=0.1)  # by now it is old enough

        assert (error.unsure, "its queue was made just now" in error.problem) == ([0], True)
        assert broker.depth(queue).ready == 3

    def test_a_queue_that_another_process_has_just_made(self, server, build, broker, queue, patience):
        """It is as young to all who find it there."""
        broker.declare([QueueSpec(name=queue)])
        other = build(server.url)
        other.declare([QueueSpec(name=queue)])

        error = push_error(other, queue, 1, timeout=0.1)
        push(other, queue, 2)
        push(other, queue, 3, timeout=0.1)

        assert (error.unsure, "its queue was made just now" in error.problem) == ([0], True)

    def test_a_queue_that_others_made_long_ago(self, server, build, broker, queue, channel, patience):
        """Who finds it there doesn't wait, also while another queue is young."""
        declare(channel, queue, x_queue_type="quorum", x_delivery_limit=1_000_000_000)
        broker.declare([QueueSpec(name=f"{queue}.new")])
        other = build(server.url)
        other.declare([QueueSpec(name=queue), QueueSpec(name=f"{queue}.new")])

        push(other, queue, 1, timeout=patience / 2)
        error = push_error(other, f"{queue}.new", 2, timeout=0.1)

        assert other.depth(queue).ready == 1
        assert "its queue was made just now" in error.problem

    def test_a_queue_grows_old_for_all(self, server, build, broker, queue, patience, monkeypatch):
        """However often processes find it meanwhile; and nothing is left of its youth."""
        monkeypatch.setattr("boost_broker_rabbitmq.marker.LASTING_SECONDS", 1.0)
        broker.declare([QueueSpec(name=queue)])

        def is_old():
            other = make_broker(server.url)
            other.open()
            try:
                other.declare([QueueSpec(name=queue)])
                push(other, queue, 1, timeout=0.1)
            except PublishError:
                return False
            finally:
                other.close()
            return True

        until(is_old)

        assert [name for name in server.control("list_queues", "name").split() if queue in name] == [queue]

    def test_a_young_ladder(self, broker, queue, patience, channel):
        """It isn't used: a delayed message waits in its work queue, and in the worker that gets it, until it is due."""
        declare(channel, queue, x_queue_type="quorum")
        subscription = subscribe(broker, queue)
        push(broker, queue, "first")  # waits until the queue isn't young
        begun = broker.clock.time()
        push(broker, queue, "late", delay=1.2, timeout=0.5)
        push(broker, queue, "soon", timeout=0.5)

        assert bodies(take(subscription, 3, queue)) == ["first", "soon", "late"]
        assert broker.clock.time() - begun >= 1.2

    def test_threads_publish_at_once(self, broker, queue, subscription):
        """Each over a connection of its own; nothing is lost or doubled."""
        threads = [threading.Thread(target=push, args=(broker, queue, *range(n, n + 50))) for n in range(0, 400, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(bodies(take(subscription, 400, queue)), key=int) == [str(number) for number in range(400)]

    def test_after_close(self, server, build, queue):
        """A closed broker says so; closing twice does nothing."""
        broker = build(server.url)
        broker.close()
        broker.close()

        for use in (lambda: push(broker, queue, 1), lambda: broker.depth(queue), lambda: subscribe(broker, queue)):
            with pytest.raises(Closed, match="broker 'rabbitmq' is closed"):
                use()


class TestQueues:
    """Queues as they should be, and those that were there before."""

    @pytest.mark.parametrize(
        "name",
        [
            "a/b {x}",
            "订单" * 90,
            "🦀" * 180,
            "spaced 'quoted' 100%",
            "amq.mine",
            "%61mq.mine",
            "tilde~delay~60",
            "x" * 180,
        ],
    )
    def test_any_name(self, broker, name):
        """Any text names a queue; none is taken for another or for one of the server's."""
        subscription = subscribe(broker, name, f"{name[:-1]}!")
        broker.purge(name)
        push(broker, name, name)

        (delivery,) = take(subscription, 1, name, f"{name[:-1]}!")

        assert (delivery.queue, delivery.body) == (name, name.encode())
        subscription.ack([delivery])

    def test_queues_are_durable_quorum_queues(self, broker, queue, channel):
        """So they were made, and none of its arguments differs."""
        broker.declare([QueueSpec(name=queue), QueueSpec(name=f"{queue}.dead", kind=QueueKind.DEAD)])

        for name in (queue, f"{queue}.dead"):
            declare(channel, name, x_queue_type="quorum", x_delivery_limit=1_000_000_000)

    def test_other_arguments_are_told_one_by_one(self, broker, queue, channel):
        """Each with both values, and what to do."""
        arguments = {"x_message_ttl": 60000, "x_dead_letter_exchange": "elsewhere", "x_delivery_limit": 5}
        declare(channel, queue, x_queue_type="quorum", **arguments)

        with pytest.raises(BrokerUnavailable) as caught:
            broker.declare([QueueSpec(name=queue)])

        assert sorted(str(caught.value).splitlines()) == sorted(
            [
                f"broker 'rabbitmq': queue '{queue}' exists with other arguments:",
                "    x-message-ttl: 60000 there, None wanted",
                "    x-dead-letter-exchange: 'elsewhere' there, None wanted",
                "    x-delivery-limit: 5 there, 1000000000 wanted",
                f"  Delete the queue once it is empty (rabbitmqctl delete_queue '{queue}'), or give the task another queue.",
            ]
        )

    @pytest.mark.parametrize(("levels", "shown"), [(None, 1), (4, 5)])
    def test_a_classic_queue_can_be_taken_as_it_is(self, server, build, broker, queue, channel, levels, shown):
        """The error names the options for it, and with them the queue serves."""
        declare(channel, queue, **({} if levels is None else {"x_max_priority": levels}))

        with pytest.raises(BrokerUnavailable) as caught:
            broker.declare([QueueSpec(name=queue)])
        other = build(server.url, queue_type="classic", priorities=shown)
        other.declare([QueueSpec(name=queue)])
        push(other, queue, 1)

        assert "x-queue-type: None there, 'quorum' wanted" in str(caught.value)
        assert f'with the broker\'s options queue_type="classic", priorities={shown}.' in str(caught.value)
        assert other.depth(queue).ready == 1

    def test_a_queue_of_dead_letters_with_priorities(self, server, build, queue, channel):
        """No option would take it as it is, so none is named."""
        declare(channel, f"{queue}.dead", x_max_priority=9)
        broker = build(server.url, queue_type="classic")

        with pytest.raises(BrokerUnavailable, match="x-max-priority: 9 there, None wanted") as caught:
            broker.declare([QueueSpec(name=f"{queue}.dead", kind=QueueKind.DEAD)])

        assert f"Delete the queue once it is empty (rabbitmqctl delete_queue '{queue}.dead')" in str(caught.value)
        assert "Take it as it is" not in str(caught.value)

    def test_a_queue_that_is_not_durable(self, broker, queue, channel):
        """That is told like any argument."""
        channel.queue_declare(queue, durable=False, auto_delete=False)

        with pytest.raises(BrokerUnavailable, match="durable: False there, True wanted"):
            broker.declare([QueueSpec(name=queue)])

    def test_an_exclusive_queue(self, broker, queue, channel):
        """It belongs to somebody else."""
        channel.queue_declare(queue, exclusive=True)

        with pytest.raises(BrokerUnavailable, match=r"belongs to another connection alone \(exclusive\)"):
            broker.declare([QueueSpec(name=queue)])

    def test_depth_tells_ready_delayed_and_running(self, broker, queue, subscription):
        """All of them are known where they are this process's."""
        push(broker, queue, *range(5))
        push(broker, queue, "late", "later", delay=100)
        held = take(subscription, 2, queue)

        assert broker.depth(queue) == Depth(ready=3, delayed=2, running=2)
        subscription.ack(held)
        assert broker.depth(queue) == Depth(ready=3, delayed=2)

    def test_depth_tells_what_all_subscriptions_of_the_process_hold(self, broker, queue, subscription):
        """As there are two while tasks join."""
        push(broker, queue, *range(20))
        held, other = take(subscription, 3, queue), subscribe(broker, queue)
        take(other, 4, queue)
        until(lambda: broker.depth(queue) == Depth(ready=13, running=7))

        subscription.ack(held)
        subscription.close()

        until(lambda: broker.depth(queue) == Depth(ready=13, running=4))

    def test_purge_removes_what_waits_and_what_is_delayed(self, broker, queue, subscription):
        """What runs stays, and can be acknowledged."""
        push(broker, queue, *range(5))
        push(broker, queue, "late", "later", delay=100)
        held = take(subscription, 1, queue)

        assert broker.purge(queue) == 6
        assert broker.depth(queue) == Depth(running=1)
        assert subscription.ack(held) == []
        assert broker.purge("never heard of") == 0

    def test_peeking_is_refused(self, broker, queue):
        """A server has no way to show messages without taking them."""
        with pytest.raises(UnsupportedCapability, match="has no capability 'peek'"):
            broker.peek(queue, 1)


class TestDelays:
    """The ladder of queues, and the last second in a worker."""

    def test_delays_of_any_length(self, broker, queue, subscription):
        """None comes early, and they come in the order of their times, whichever steps they take."""
        delays = [2.6, 0, 1.0, 0.05, 1.7, 0.3]
        begun = broker.clock.time()
        for delay in delays:
            push(broker, queue, delay, delay=delay)

        came = []
        while len(came) < len(delays):
            for delivery in subscription.fetch({queue: 10}, 5.0):
                came.append(float(delivery.body))
                assert broker.clock.time() - begun >= came[-1]

        assert came == sorted(delays)

    def test_a_delayed_message_waits_without_a_worker(self, server, build, broker, queue):
        """And survives whoever published it: a worker that comes later has it in time."""
        broker.declare([QueueSpec(name=queue)])
        due = broker.clock.time() + 1.2
        push(broker, queue, "late", delay=1.2)
        broker.close()

        other = build(server.url)
        assert other.depth(queue) == Depth(delayed=1)
        (delivery,) = take(subscribe(other, queue), 1, queue)

        assert other.clock.time() >= due
        assert delivery.deaths == 0

    def test_what_comes_early_goes_on_by_itself(self, server, broker, queue, subscription, channel):
        """Whether anything is fetched or not, and some more of it is let through than is wanted."""
        push(broker, queue, "first", delay=1.5)  # makes the next step's queue
        assert bodies(take(subscription, 1, queue)) == ["first"]
        assert subscription.fetch({queue: 1}, 0.01) == []
        push(broker, queue, *range(400), delay=3.6)

        until(lambda: channel.queue_declare(f"{queue}~delay~1", passive=True).message_count > 100)

        listed = server.control("list_consumers", "queue_name", "prefetch_count").splitlines()
        assert [int(line.split()[1]) for line in listed if line.startswith(queue)] > [8]
        assert sorted(map(int, bodies(take(subscription, 400, queue)))) == list(range(400))

    def test_ready_ones_behind_what_comes_early(self, broker, queue, subscription):
        """They come in their order, as none of them is sent only to be given back."""
        push(broker, queue, "first", delay=1.5)
        assert bodies(take(subscription, 1, queue)) == ["first"]
        push(broker, queue, *(f"early {number}" for number in range(400)), delay=3.1)
        until(lambda: broker.depth(queue).ready > 100)
        push(broker, queue, *range(200))
        ready = []
        while len(ready) < 200:
            deliveries = take(subscription, 1, queue)
            ready += [body for body in bodies(deliveries) if body.isdigit()]
            assert subscription.ack(deliveries) == []

        assert ready == [str(number) for number in range(200)]

    def test_a_held_message_is_given_back_at_close(self, broker, queue, subscription):
        """Another worker waits for its time then."""
        push(broker, queue, "soon", delay=0.9)
        assert subscription.fetch({queue: 1}, 0.1) == []
        assert broker.depth(queue).delayed == 1
        subscription.close()

        assert bodies(take(subscribe(broker, queue), 1, queue)) == ["soon"]

    def test_times_to_live(self, broker, queue):
        """What nobody fetched in its time is gone, also where it was delayed, or held until it was due."""
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, "short", ttl=0.2)
        push(broker, queue, "late", delay=1.1, ttl=0.4)
        push(broker, queue, "long", ttl=60, delay=1.3)
        until(lambda: broker.depth(queue) == Depth(delayed=2))

        assert bodies(take(subscribe(broker, queue), 1, queue)) == ["long"]
        assert broker.depth(queue) == Depth(running=1)


class TestConsuming:
    """What is sent ahead, given back, counted."""

    def test_no_more_is_sent_than_is_asked_for(self, broker, queue, subscription):
        """So one worker doesn't keep from another what it has no use for."""
        push(broker, queue, *range(10))

        mine = take(subscription, 4, queue)
        others = take(subscribe(broker, queue), 6, queue)

        assert bodies([*mine, *others]) == [str(number) for number in range(10)]

    def test_a_queue_that_is_shut_gives_back_what_was_sent_ahead(self, broker, queue, subscription):
        """And takes no more until it is wanted again."""
        push(broker, queue, 1, 2, 3)
        subscription.shut([queue])
        push(broker, queue, 4)

        assert sorted(bodies(take(subscribe(broker, queue), 4, queue))) == ["1", "2", "3", "4"]
        push(broker, queue, 5)
        assert bodies(take(subscription, 1, queue)) == ["5"]

    def test_what_was_sent_too_much_is_given_back(self, broker, queue, subscription):
        """Who asked for hundreds and then asks for one keeps some ahead, and leaves the rest to others."""
        assert subscription.fetch({queue: 400}, 0.01) == []
        push(broker, queue, *range(400))
        until(lambda: broker.depth(queue).ready == 400)
        mine = take(subscription, 1, queue)
        mine += take(subscription, 1, queue)

        others = take(subscribe(broker, queue), 350, queue)

        assert bodies(mine) == ["0", "1"]
        assert len(set(bodies(others))) == 350

    def test_credit_bounds_what_is_unsettled(self, broker, queue):
        """Wanting more brings no more, until something is settled."""
        subscription = subscribe(broker, queue, credit={queue: 3})
        push(broker, queue, *range(5))
        held = take(subscription, 3, queue)

        assert subscription.fetch({queue: 5}, 0.2) == []
        subscription.ack(held[:1])
        assert bodies(take(subscription, 1, queue)) == ["3"]

    def test_acks_in_any_order_end_the_right_ones(self, broker, queue, subscription):
        """Neighbours of an acknowledged message come back when nobody acknowledged them."""
        push(broker, queue, *range(50))
        held = take(subscription, 50, queue)

        assert subscription.ack([held[n] for n in (40, 0, 1, 2, 30, 3)]) == []
        assert subscription.ack([held[0]]) == [held[0]]
        subscription.close()
        again = sorted(map(int, bodies(take(subscribe(broker, queue), 44, queue))))

        assert again == [number for number in range(50) if number not in (0, 1, 2, 3, 30, 40)]

    def test_higher_priorities_first(self, server, build, queue):
        """Of classic queues, within one and between several; beyond the levels a message fails."""
        broker = build(server.url, queue_type="classic")
        subscription = subscribe(broker, queue, f"{queue}2")
        for number in (0, 5, 2, 9):
            push(broker, queue, number, priority=number)
            push(broker, f"{queue}2", f"{number}b", priority=number)
        subscription.shut([queue, f"{queue}2"])  # gives back what was sent before the others were there

        first = take(subscription, 3, queue)
        error = push_error(broker, queue, "x", priority=10)

        assert bodies(first) == ["9", "5", "2"]
        assert bodies(take(subscription, 4, f"{queue}2")) == ["9b", "5b", "2b", "0b"]
        assert (error.problem, error.failed) == ("its priority 10 isn't 0 to 9", [0])

    def test_foreign_messages(self, broker, queue, subscription, channel):
        """Their bodies come as they are, whatever their properties, and cost neither connection nor neighbours."""
        odd = {"timestamp": {"now": 1_800_000_000_000}, "headers": {"boost-due": "soon", "boost-deaths": -3}}
        message = amqp.Message(b"\xff\x00", content_type="caf\udce9", application_headers=odd, priority=7)
        channel.basic_publish(message, routing_key=queue)
        channel.basic_publish(amqp.Message(b"text", content_encoding="utf-16"), routing_key=queue)
        push(broker, queue, "ours")

        found = take(subscription, 3, queue)

        assert [delivery.body for delivery in found] == [b"\xff\x00", b"text", b"ours"]
        assert [delivery.deaths for delivery in found] == [0, 0, 0]

    def test_a_deleted_queue_stops_alone(self, broker, queue, subscription, channel):
        """Its consumer learns of it; the other queues of the subscription go on."""
        both = subscribe(broker, queue, f"{queue}2")
        channel.queue_delete(queue)

        with pytest.raises(QueueGone, match=f"queue '{queue}' no longer exists"):
            take(both, 1, queue, f"{queue}2")
        push(broker, f"{queue}2", "on")

        assert bodies(take(both, 1, f"{queue}2")) == ["on"]

    def test_a_queue_in_exclusive_use(self, broker, queue, channel):
        """Somebody else's exclusive consumer is told as the server tells it."""
        broker.declare([QueueSpec(name=queue)])
        classic = f"{queue}.classic"
        declare(channel, classic)
        channel.basic_consume(classic, exclusive=True)

        with pytest.raises(BrokerUnavailable, match=f"queue '{classic}' in vhost '/' in exclusive use"):
            broker.subscribe([QueueSpec(name=classic)], {}, lambda _: None)


class TestDeaths:
    """What counts as the death of an owner."""

    def test_giving_back_is_not_counted(self, broker, queue):
        """Neither by release, nor by a close, nor by shutting a queue, however often."""
        push_to = subscribe(broker, queue)
        push(broker, queue, 1)
        for _ in range(4):
            (delivery,) = take(push_to, 1, queue)
            assert delivery.deaths == 0
            push_to.release([delivery])
            until(lambda: broker.depth(queue).ready == 1)
            push_to.shut([queue])
            (delivery,) = take(push_to, 1, queue)
            push_to.close()
            assert push_to.ack([delivery]) == [delivery]
            push_to = subscribe(broker, queue)

        assert take(push_to, 1, queue)[0].deaths == 0

    def test_wanting_more_is_not_counted(self, server, broker, queue):
        """A consumer that may be sent more isn't cancelled to get a larger one: what crosses with that is counted."""
        subscription = subscribe(broker, queue)

        assert subscription.fetch({queue: 16}, 0.1) == []

        (line,) = [line for line in server.control("list_consumers", "-q").splitlines() if line.startswith(queue)]
        assert line.split()[2] == "1"  # its tag: the first one's
        push(broker, queue, *range(20))
        assert {delivery.deaths for delivery in take(subscription, 20, queue)} == {0}

    def test_ended_connections_are_counted(self, proxy, broker, build, queue):
        """Each that held the message; the first return is forgiven, whatever it was."""
        broker.declare([QueueSpec(name=queue)])
        for gives_back, expected in ((False, [0, 0, 1, 2]), (True, [0, 1, 2, 3])):
            push(broker, queue, 1)
            counted = []
            for _ in range(4):
                subscription = subscribe(build(proxy.url), queue)
                (delivery,) = take(subscription, 1, queue)
                counted.append(delivery.deaths)
                if gives_back:
                    subscription.release([delivery])
                    (delivery,) = take(subscription, 1, queue)
                proxy.cut()
            assert counted == expected
            last = subscribe(broker, queue)
            assert last.ack(take(last, 1, queue)) == []
            last.close()

    def test_ordered_queues_keep_their_order_instead(self, broker, queue):
        """There a message that is given back comes next every time, and deaths aren't known."""
        subscription = subscribe(broker, queue, ordered=True)
        push(broker, queue, *range(50))
        for _ in range(4):
            (delivery,) = take(subscription, 1, queue)
            assert (delivery.body, delivery.deaths) == (b"0", 0)
            subscription.release([delivery])
            until(lambda: broker.depth(queue) == Depth(ready=50))
            subscription.shut([queue])
