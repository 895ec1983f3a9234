"""The broker on servers that are wrong, hostile, barred, or that go away."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from boost_core.plugin import (
    BrokerUnavailable,
    ConnectionLost,
    Depth,
    Frame,
    PublishError,
    QueueGone,
    QueueSpec,
)
from identity import new_key, public, write_credentials, write_seed
from launcher import Nats, free_ports
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats_stage import Background, OldServer, barred, bodies, make_broker, push, raw, subscribe, take, until


def problem_of(url, **options):
    """Return the text of what opening raises; the broker can be closed all the same."""
    broker = make_broker(url, **options)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.open()
    return str(caught.value)


# --- getting in -----------------------------------------------------------------------------------


def test_a_port_where_nobody_listens():
    """Soon, with the address."""
    url = f"nats://127.0.0.1:{free_ports(1)[0]}"

    assert problem_of(url).startswith(f"broker 'nats': can't connect ({url}): [Errno 111] Connect call failed")
    assert problem_of(url).endswith("\n  Start the server, or mend the URL.")


def test_a_wrong_password(launch):
    """The error has the remedy, and no password."""
    server = launch(users={"me": "sesame"})

    assert problem_of(f"nats://me:guess@127.0.0.1:{server.port}") == (
        f"broker 'nats': the server refuses the login (nats://me:***@127.0.0.1:{server.port})\n"
        "  Mend the login in the URL, or the options user, password, token, credentials and nkey."
    )


def test_a_server_that_says_nothing(proxy):
    """It is given up within the time-out."""
    proxy.hang()
    url = f"nats://127.0.0.1:{proxy.port}"

    assert problem_of(url, timeout="500ms") == (
        f"broker 'nats': no answer within 0.5 s ({url})\n  Mend host and port in the URL, or see why the server hangs."
    )


def test_a_server_of_another_kind(proxy):
    """What doesn't greet as NATS does isn't one."""
    proxy.talk(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    url = f"nats://127.0.0.1:{proxy.port}"

    assert problem_of(url) == (
        f"broker 'nats': what answers there is no NATS server ({url})\n"
        "  Mend host and port in the URL: clients speak to the server's port, 4222 by default."
    )


@pytest.mark.parametrize("login", ["", "me:sesame@"])
def test_tls_against_a_plain_port(server, login):
    """Nothing goes over the line in plain text where TLS was asked for: no password, and no message."""
    said = problem_of(f"tls://{login}127.0.0.1:{server.port}")

    assert said.startswith("broker 'nats': the server speaks no TLS, so nothing was sent to it (tls://")
    assert "\n  Give nats:// instead of tls://, and no certificates, where plain text will do, or the server" in said


@pytest.mark.parametrize("login", ["", "me:sesame@"])
def test_certificates_against_a_plain_port(launch, login):
    """Who names one asks for TLS, whatever the URL says."""
    secured, plain = launch(tls=True), launch()

    said = problem_of(f"nats://{login}127.0.0.1:{plain.port}", tls_ca=str(secured.ca))

    assert said.startswith("broker 'nats': the server speaks no TLS, so nothing was sent to it (nats://")


def test_tls(launch, build, queue):
    """With the server's authority it works, also where the URL doesn't say so; without it, the error names the option."""
    server = launch(tls=True, users={"me": "sesame"})

    said = problem_of(server.url)
    broker = build(server.url, tls_ca=str(server.ca))
    push(build(server.url.replace("tls://", "nats://"), tls_ca=str(server.ca)), queue, "job")

    assert said.startswith("broker 'nats': TLS failed (tls://me:***@127.0.0.1:")
    assert said.endswith("CERTIFICATE_VERIFY_FAILED\n  Name the server's authority by the option tls_ca.")
    assert bodies(take(subscribe(broker, queue), 1, queue)) == ["job"]


def test_tls_without_a_login(launch, build, tmp_path, queue):
    """Also where an nkey stands for the password, or nothing does."""
    key = new_key()
    plain, keyed = launch(tls=True), launch(tls=True, settings={"authorization": {"users": [{"nkey": public(key)}]}})

    for server, options in ((plain, {}), (keyed, {"nkey": write_seed(tmp_path / "seed", key)})):
        push(build(server.url, tls_ca=str(server.ca), **options), queue, "job")


@pytest.mark.parametrize(
    ("authorization", "login", "options"),
    [
        ({"token": "s/e@same"}, "", {"token": "s/e@same"}),
        ({"token": "s/e@same"}, "s%2Fe%40same@", {}),
        ({"user": "me", "password": "p:w/"}, "me:p%3Aw%2F@", {}),
        ({"user": "me", "password": "p:w/"}, "", {"user": "me", "password": "p:w/"}),
    ],
)
def test_passwords_and_tokens(launch, build, queue, authorization, login, options):
    """In the URL, escaped, or by options."""
    server = launch(settings={"authorization": authorization})

    broker = build(f"nats://{login}127.0.0.1:{server.port}", **options)

    push(broker, queue, "job")
    assert broker.depth(queue).ready == 1


def test_an_nkey(launch, build, tmp_path, queue):
    """The seed's file logs in; another's is refused."""
    mine, other = new_key(), new_key()
    server = launch(settings={"authorization": {"users": [{"nkey": public(mine)}]}})

    push(build(server.url, nkey=write_seed(tmp_path / "mine", mine)), queue, "job")

    assert "refuses the login" in problem_of(server.url, nkey=write_seed(tmp_path / "other", other))


def test_a_credentials_file(launch, build, tmp_path, queue):
    """JWT and seed of a user whose account the server knows; another's are refused."""
    path, settings = write_credentials(tmp_path / "user.creds")
    other, _ = write_credentials(tmp_path / "other.creds")
    server = launch(settings=settings)

    push(build(server.url, credentials=path), queue, "job")

    assert "refuses the login" in problem_of(server.url, credentials=other)


@pytest.mark.parametrize("option", ["credentials", "nkey", "tls_ca", "tls_cert"])
@pytest.mark.parametrize(("name", "reason"), [("nothing", "No such file or directory"), ("", "Is a directory")])
def test_files_that_cannot_be_read(server, tmp_path, option, name, reason):
    """They are named, with the reason."""
    path = str(tmp_path / name)

    assert problem_of(server.url, **{option: path}) == (
        f"broker 'nats': the file {path!r} can't be read: {reason}\n  Mend the option that names it."
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("credentials", "(option credentials) has no line 'BEGIN NATS USER JWT'"),
        ("nkey", "(option nkey) has no seed of an nkey"),
        ("tls_ca", "(option tls_ca) has no certificate"),
        ("tls_cert", "(option tls_cert) has no certificate with its key"),
    ],
)
@pytest.mark.parametrize("text", ["nothing\n", "", "SUAM"])
def test_files_that_hold_something_else(server, tmp_path, option, words, text):
    """They are named, with what they lack; credentials aren't looked for, for ever."""
    path = tmp_path / "file"
    path.write_text(text)

    assert problem_of(server.url, **{option: str(path)}) == (
        f"broker 'nats': {str(path)!r} {words}\n  Mend the file, or the option that names it."
    )


# --- servers that can't what is asked --------------------------------------------------------------


def test_an_account_without_jetstream(launch):
    """The remedy is a line of the server's configuration."""
    accounts = {"A": {"jetstream": "enabled"}, "B": {"users": [{"user": "me", "password": "sesame"}]}}
    server = launch(settings={"accounts": accounts})
    url = f"nats://me:sesame@127.0.0.1:{server.port}"

    said = problem_of(url)

    assert said.startswith("broker 'nats': JetStream not enabled for account (nats://me:***@127.0.0.1:")
    assert "Give the server's configuration a jetstream section (and the account jetstream: enabled)." in said


def test_a_server_without_jetstream(tmp_path):
    """The same remedy."""

    class Plain(Nats):
        def _answers(self):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return False
            return True

    with Plain(folder=tmp_path, settings={"jetstream": False}).start() as server:
        said = problem_of(server.url)

    assert said.startswith("broker 'nats': JetStream is off (nats://127.0.0.1:")
    assert said.endswith("Give the server's configuration a jetstream section (and the account jetstream: enabled).")


@pytest.mark.parametrize(
    ("version", "options", "words"),
    [
        ("2.11.8", {}, "NATS 2.11 at {}; delays need 2.12\n  Upgrade the server, or set delays=False."),
        ("2.8.4", {"delays": False}, "NATS 2.8 at {}; it must be 2.9 or later\n  Upgrade the server."),
    ],
)
def test_a_server_that_is_too_old(version, options, words):
    """The error names its version, what it lacks, and the option that does without."""
    server = OldServer(b'{"version": "%s", "max_payload": 1048576, "headers": true}' % version.encode())

    assert problem_of(server.url, **options) == f"broker 'nats': {words.format(server.url)}"
    server.close()


def test_a_server_that_takes_less_than_promised(launch):
    """Both sizes are told, and what to set."""
    server = launch(settings={"max_payload": 65536})

    assert problem_of(server.url) == (
        "broker 'nats': the server takes 65,536 bytes, not 1,048,576\n"
        "  Set max_payload there, or the option max_payload=65536 here."
    )


def test_copies_that_a_single_server_cannot_keep(server, build, queue):
    """Declaring says so, with the option."""
    broker = build(server.url, replicas=3)

    with pytest.raises(BrokerUnavailable, match="replicas > 1 not supported in non-clustered mode\n  Set replicas to"):
        broker.declare([QueueSpec(name=queue)])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"retention": "limits"}, "has retention='limits'; queue {queue!r} needs 'workqueue'\n  Delete the stream"),
        ({"storage": "memory"}, "has storage='memory'; queue {queue!r} needs 'file'"),
        ({"max_msgs": 5, "discard": "old"}, "has a max_msgs: messages of queue {queue!r} would be dropped"),
        (
            {"max_age": 60},
            "has a max_age: messages of queue {queue!r} would be dropped\n  Take the stream's max_age away",
        ),
    ],
)
def test_an_existing_stream_that_is_unfit(server, broker, queue, config, words):
    """It is left alone; the error names it, what is wrong with it, and what it takes."""
    token = queue.replace(".", "+")
    subjects = [f"boost.{token}.job", f"boost.{token}.later.*"]

    async def make(client):
        given = {"retention": "workqueue", "storage": "file", **config}
        await client.jetstream().add_stream(name=f"boost_{token}", subjects=subjects, **given)

    raw(server.url, make)

    with pytest.raises(BrokerUnavailable) as caught:
        broker.declare([QueueSpec(name=queue)])
    assert f"stream 'boost_{token}' {words.format(queue=queue)}" in str(caught.value)


def test_a_stream_of_one_without_delays_learns_them(server, build, queue):
    """A process with other options adds what the stream lacks; what waits in it stays."""
    push(build(server.url, delays=False), queue, "now")

    broker = build(server.url)
    push(broker, queue, "late", delay=60)

    assert broker.depth(queue) == Depth(ready=1, delayed=1)
    push(build(server.url, delays=False), queue, "again")
    assert broker.depth(queue) == Depth(ready=2, delayed=1)


def test_the_largest_bodies(launch, build, queue):
    """Where server and option allow it, bodies go through up to all that JetStream stores; 50 MB fail alone, here."""
    most = 32 * 1024 * 1024
    broker = build(launch(settings={"max_payload": 2 * most}).url, max_payload=most)
    subscription = subscribe(broker, queue)
    largest = broker.spec.limits.max_body
    frames = [Frame(f"{size}", queue, b"x" * size) for size in (1, largest, 50_000_000, 2)]

    with pytest.raises(PublishError, match="a body of 50,000,000 bytes is over 33,550,336") as caught:
        broker.publish(frames, 30)

    deliveries = take(subscription, 3, queue)
    assert (caught.value.failed, caught.value.unsure) == ([2], [])
    assert [len(delivery.body) for delivery in deliveries] == [1, largest, 2]
    assert subscription.ack(deliveries[::2]) == []
    subscription.release(deliveries[1:2])
    (again,) = take(subscription, 1, queue)
    assert again.body == frames[1].body


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("server", "insufficient resources (raise max_file_store in its jetstream section"),
        ("account", "resource limits exceeded for account (raise max_file in the account's jetstream section"),
    ],
)
def test_no_room(launch, build, tmp_path, queue, limit, words):
    """A push fails, and says what to raise; workers go on, and then there is room again."""
    room = 2_000_000
    account = {"users": [{"user": "me", "password": "sesame"}], "jetstream": {"max_file": room}}
    store = {"store_dir": str(tmp_path / "data"), "sync_interval": "always"}
    settings = {
        "server": {"jetstream": {**store, "max_file_store": room}, "authorization": account["users"][0]},
        "account": {"jetstream": store, "accounts": {"A": account, "SYS": {}}, "system_account": "SYS"},
    }
    broker = build(launch(settings=settings[limit]).url.replace("//", "//me:sesame@"))
    subscription = subscribe(broker, queue)
    frames = [Frame(f"{index}", queue, b"x" * 900_000) for index in range(4)]

    with pytest.raises(PublishError) as caught:
        broker.publish(frames, 10)
    stored = len(frames) - len(caught.value.failed)
    subscription.ack(take(subscription, stored, queue))
    until(lambda: broker.depth(queue) == Depth())
    broker.publish(frames[-1:], 10)

    assert (stored > 0, caught.value.unsure) == (True, [])
    assert caught.value.problem == f"the server refuses: {words}, or let workers make room)"
    assert len(take(subscription, 1, queue)) == 1


def test_no_permission_for_a_queue(launch, build, queue):
    """Publishing to that queue fails at once, by index, and names the subject; other queues are as ever."""
    broker = build(barred(launch, "boost.barred.job"))
    broker.declare([QueueSpec(name="barred"), QueueSpec(name=queue)])

    with pytest.raises(PublishError, match='permissions violation for publish to "boost.barred.job"') as caught:
        broker.publish([Frame("1", queue, b"x"), Frame("2", "barred", b"x"), Frame("3", queue, b"x")], 10)

    assert (caught.value.failed, caught.value.unsure) == ([1], [])
    assert bodies(take(subscribe(broker, queue), 2, queue)) == ["x", "x"]


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        ("$JS.ACK.>", "$js.ack.boost_q.workers.1.0.0.0.0"),
        ("boost.q.job", "boost.q.job"),
        ("boost.=releases.>", "boost.=releases.-.0"),
        ("$JS.API.CONSUMER.MSG.NEXT.boost_q.>", "$js.api.consumer.msg.next.boost_q.workers"),
    ],
)
def test_a_worker_that_may_not_serve_a_queue(launch, build, subject, named):
    """It doesn't start: the error names the subject, and what to allow. Finding it out changes nothing."""
    broker = build(barred(launch, subject))
    broker.declare([QueueSpec(name="q")])

    with pytest.raises(BrokerUnavailable) as caught:
        subscribe(broker, "q")

    assert caught.value.problem == f'the server forbids it: permissions violation for publish to "{named}"'
    assert caught.value.fix.startswith("Allow the user to publish to boost.>, $JS.API.> and $JS.ACK.>")
    assert broker.depth("q") == Depth()


def test_an_acknowledgement_that_is_forbidden(launch, build, queue):
    """It is no success: settling and extending raise, and name the subject; what is allowed is done."""
    broker = build(barred(launch, "$JS.ACK.*.*.*.1.>"))  # of a stream's first message, and no other
    subscription = subscribe(broker, queue)
    push(broker, queue, "first", "second")
    first, second = take(subscription, 2, queue)

    for call in (subscription.ack, subscription.extend, subscription.release):
        with pytest.raises(BrokerUnavailable, match=r'violation for publish to "\$js\.ack\..*\n  Allow the user to'):
            call([first])

    assert subscription.ack([second]) == []
    until(lambda: broker.depth(queue) == Depth(running=1))


@pytest.mark.parametrize(
    "permissions", [{"publish": "boost.>", "subscribe": "_INBOX.>"}, {"publish": ">", "subscribe": "answers.>"}]
)
def test_no_permission_for_jetstream_or_for_answers(launch, permissions):
    """Opening says at once what the user needs."""
    users = [{"user": "me", "password": "sesame", "permissions": permissions}]
    server = launch(settings={"authorization": {"users": users}})

    said = problem_of(server.url.replace("//", "//me:sesame@"))

    assert said.startswith("broker 'nats': the server forbids it: permissions violation for ")
    assert said.endswith(
        "Allow the user to publish to boost.>, $JS.API.> and $JS.ACK.>, and to subscribe to _INBOX.> (option inbox)."
    )


def test_inboxes_of_a_users_own(launch, build, queue):
    """Where users may hear nothing but their own answers, the option names where those go."""
    permissions = {"publish": ["boost.>", "$JS.>"], "subscribe": "answers.me.>"}
    users = [{"user": "me", "password": "sesame", "permissions": permissions}]
    server = launch(settings={"authorization": {"users": users}})

    broker = build(server.url.replace("//", "//me:sesame@"), inbox="answers.me")

    push(broker, queue, "job")
    assert bodies(take(subscribe(broker, queue), 1, queue)) == ["job"]


# --- servers that go away ---------------------------------------------------------------------------


def test_a_cluster_of_which_one_is_down(server, build, queue):
    """Any of the addresses will do."""
    dead = free_ports(1)[0]

    broker = build(f"nats://127.0.0.1:{dead}, nats://127.0.0.1:{server.port}")

    push(broker, queue, "job")
    assert broker.depth(queue).ready == 1


def test_a_connection_cut_in_the_middle_of_a_batch(server, build, proxy, queue):
    """What is unsure is named by index, what never left has failed, and publishing it all again doubles nothing."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}")
    broker.declare([QueueSpec(name=queue)])
    frames = [Frame(f"{index}", queue, b"x" * 2000, dedup_id=f"{index}:1:0") for index in range(1000)]

    proxy.cut(after=300_000)
    with pytest.raises(PublishError) as caught:
        broker.publish(frames, 10)
    missing = {*caught.value.failed, *caught.value.unsure}
    stored = broker.depth(queue).ready
    broker.publish([frames[index] for index in sorted(missing)], 10)

    assert caught.value.unsure
    assert len(frames) - len(missing) <= stored < len(frames)
    assert broker.depth(queue) == Depth(ready=len(frames))


def test_a_server_that_hangs_in_the_middle_of_a_batch(server, build, proxy, queue):
    """The deadline holds, and all of it is unsure."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}")
    broker.declare([QueueSpec(name=queue)])

    proxy.hang()
    with pytest.raises(PublishError, match="didn't confirm in time") as caught:
        broker.publish([Frame(f"{index}", queue, b"x") for index in range(100)], 0.3)
    proxy.forward()

    assert (caught.value.failed, caught.value.unsure) == ([], list(range(100)))


def test_a_client_that_ends_cancelled(server, build, monkeypatch):
    """nats-py's end is its own affair, also where it is the cancellation of a task of its own: closing just ends."""
    broker = build(server.url)
    close = Client.close

    async def cancelled(client):
        await close(client)
        raise asyncio.CancelledError

    monkeypatch.setattr(Client, "close", cancelled)

    broker.close()


def test_receipts_outlive_a_connection(server, build, proxy, queue):
    """A cut is told as such to a blocked fetch; after dialling again what was held can be acked, and more comes."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}")
    subscription = subscribe(broker, queue)
    push(broker, queue, *range(3))
    held = take(subscription, 3, queue)
    fetching = Background(subscription.fetch, {queue: 3}, 60.0)
    until(lambda: proxy.writes)

    proxy.cut()
    with pytest.raises(ConnectionLost, match="the connection was lost"):
        fetching.outcome()
    subscription.reconnect()

    assert subscription.ack(held[:2]) == []
    assert subscription.release(held[2:]) == []
    push(broker, queue, "more")
    assert bodies(take(subscription, 2, queue)) == ["2", "more"]


def test_calls_without_a_connection(server, build, proxy, queue):
    """Settling says that the connection is lost, publishing that there is none, each in its time."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}", timeout="1s")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    held = take(subscription, 1, queue)
    proxy.refuse()
    proxy.cut()

    with pytest.raises(ConnectionLost):
        take(subscription, 1, queue)
    for call in (subscription.ack, subscription.release, subscription.extend):
        with pytest.raises(ConnectionLost):
            call(held)
    with pytest.raises(BrokerUnavailable):
        broker.publish([Frame("1", queue, b"x")], 0.5)
    with pytest.raises(BrokerUnavailable):
        subscription.reconnect()

    proxy.accept()
    until(lambda: _reconnected(subscription))
    assert subscription.ack(held) == []


def _reconnected(subscription):
    try:
        subscription.reconnect()
    except BrokerUnavailable:
        return False
    return True


def test_a_server_that_hears_nothing_any_more(server, build, proxy, queue):
    """An acknowledgement that isn't confirmed in time counts as a lost connection; it can be repeated on the next one."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}", timeout="1s")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    held = take(subscription, 1, queue)

    proxy.hang()
    with pytest.raises(ConnectionLost, match="the server didn't confirm what it was told"):
        subscription.ack(held)
    proxy.forward()
    until(lambda: _reconnected(subscription))

    assert subscription.ack(held) == []


def test_the_server_is_asked_behind_what_it_was_told(server, build, queue, monkeypatch):
    """Not before: its answer would prove nothing, and what is cut off would be taken for done."""
    broker = build(server.url, lease="10m", timeout="10m")  # so that nats-py asks nothing of its own
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    held = take(subscription, 1, queue)
    sent, write, writelines = [], TcpTransport.write, TcpTransport.writelines
    monkeypatch.setattr(TcpTransport, "write", lambda transport, data: (sent.append(data), write(transport, data))[1])
    monkeypatch.setattr(
        TcpTransport, "writelines", lambda transport, data: (sent.extend(data), writelines(transport, data))[1]
    )

    subscription.ack(held)

    assert b"".join(sent).startswith(b"PUB $JS.ACK.")
    assert b"".join(sent).endswith(b"+ACK\r\nPING\r\n")


def test_closing_on_a_server_that_hangs(server, build, proxy, queue, caplog):
    """It is soon done, and says what becomes of the messages: another gets them when their lease is over."""
    proxy.target = server.port
    broker = build(f"nats://127.0.0.1:{proxy.port}", timeout="20s", lease="2s")
    subscription = subscribe(broker, queue)
    push(broker, queue, "job")
    take(subscription, 1, queue)

    proxy.hang()
    subscription.close()

    assert "what was unsettled comes back when its lease is over: broker 'nats': no answer within 1 s" in caplog.text
    assert bodies(take(subscribe(build(server.url, lease="2s"), queue), 1, queue)) == ["job"]
    proxy.forward()


def test_a_killed_server_loses_nothing_that_was_confirmed(launch, build, queue):
    """Killed with -9 while it is written to, and started again: all is there once, and workers go on."""
    server = launch()
    broker = build(server.url)
    subscription = subscribe(broker, queue)
    confirmed = []
    stop = threading.Event()

    def publish():
        while not stop.is_set():
            frames = [
                Frame(f"{len(confirmed) + index}", queue, b"%d" % (len(confirmed) + index)) for index in range(20)
            ]
            try:
                broker.publish(frames, 5)
            except BrokerUnavailable:
                return
            except PublishError:
                return
            confirmed.extend(frame.body for frame in frames)

    publishing = Background(publish)
    until(lambda: len(confirmed) >= 200)
    server.kill()
    publishing.outcome()
    server.start()
    until(lambda: _reconnected(subscription))

    found = set()
    while len(found) < len(confirmed) or not set(confirmed) <= found:
        deliveries = take(subscription, 1, queue)
        assert not found & {delivery.body for delivery in deliveries}
        found |= {delivery.body for delivery in deliveries}
        subscription.ack(deliveries)


@pytest.mark.parametrize("what", ["stream", "consumer"])
def test_a_queue_deleted_under_its_worker(server, broker, queue, what):
    """A blocked fetch names the queue that is gone; the others are served on."""
    other = f"{queue}.other"
    subscription = subscribe(broker, queue, other)
    stream = "boost_" + queue.replace(".", "+")
    fetching = Background(subscription.fetch, {queue: 1, other: 1}, 60.0)

    async def delete(client):
        jetstream = client.jetstream()
        while not (await jetstream.consumer_info(stream, "workers")).num_waiting:
            pass
        await (jetstream.delete_stream(stream) if what == "stream" else jetstream.delete_consumer(stream, "workers"))

    raw(server.url, delete)

    with pytest.raises(QueueGone, match=f"queue '{queue}' no longer exists"):
        fetching.outcome()
    with pytest.raises(QueueGone):
        subscription.fetch({queue: 1}, 10.0)
    push(broker, other, "job")
    assert bodies(take(subscription, 1, other)) == ["job"]
