"""The store through its contract, on real servers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

import pytest
import redis
from boost_core.options import build_options
from boost_core.plugin import BadOption, Closed, StoreUnavailable, new_id
from boost_store_redis import plugin
from boost_store_redis.plugin import SPEC, RedisStoreOptions
from boost_store_redis.store import PREFIX, RedisStore
from launcher import available, free_ports


def build_store(url, **options):
    """Return an opened store."""
    store = RedisStore(build_options("store 'redis'", RedisStoreOptions, {"url": url, **options}))
    store.spec = SPEC
    store.open()
    return store


@pytest.fixture
def store(server):
    """An opened store, on each kind of server."""
    store = build_store(server.url)
    yield store
    store.close()


@pytest.fixture
def name():
    """The beginning of keys that no other test uses."""
    return f"k{new_id()}:"


class Background:
    """A call in a thread of its own."""

    def __init__(self, call, *arguments):
        self.result = self.error = None
        self._thread = threading.Thread(target=self._run, args=(call, arguments), daemon=True)
        self._thread.start()

    def _run(self, call, arguments):
        try:
            self.result = call(*arguments)
        except BaseException as error:
            self.error = error

    def join(self, seconds=10.0):
        """Return what it returned, or raise what it raised; fail where it doesn't end."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it never ended"
        if self.error is not None:
            raise self.error
        return self.result


def until(condition, seconds=10.0):
    """Return once a condition holds; fail where it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        threading.Event().wait(0.005)


def followers(server, key):
    """Return how many wait for a key, as the server knows."""
    with redis.Redis.from_url(server.url, protocol=2) as client:
        return client.pubsub_numsub(f"{PREFIX}{key}")[0][1]


def waiting(server, store, keys, timeout=60.0):
    """Return a wait in a thread of its own that has begun to follow its keys."""
    wait = Background(store.wait, keys, timeout)
    until(lambda: all(followers(server, key) for key in keys))
    return wait


def test_servers_can_be_had():
    """A server that can't be had fails the run where everything must be proven."""
    missing = {kind: reason for kind in ("redis", "valkey") if (reason := available(kind))}

    assert not missing or os.environ.get("CI") != "true"


class TestKeysAndValues:
    """What is kept."""

    def test_put_and_get(self, store, name):
        """Values come back as they were put, a later one instead of an earlier; unknown keys are left out."""
        store.put({f"{name}a": b"1", f"{name}b": b"\x00\xff" * 10, f"{name}ключ": b""}, 60)
        store.put({f"{name}a": b"2"}, 60)

        found = store.get([f"{name}{key}" for key in ("a", "b", "ключ", "nope")])
        assert found == {f"{name}a": b"2", f"{name}b": b"\x00\xff" * 10, f"{name}ключ": b""}
        assert store.get([]) == {}
        store.put({}, 60)

    def test_many_keys(self, store, name):
        """More keys than one command takes are written, read and deleted all the same."""
        items = {f"{name}{n}": b"%d" % n for n in range(2345)}
        store.put(items, 60)

        assert store.get(list(items)) == items
        assert store.delete([*items, "nope"]) == 2345
        assert store.get(list(items)) == {}

    def test_values_expire(self, store, name):
        """A value is gone after its time to live, counted anew from each put; the server forgets it."""
        store.put({f"{name}a": b"1", f"{name}b": b"1"}, 0.1)
        store.put({f"{name}b": b"2"}, 60)

        until(lambda: store.get([f"{name}a", f"{name}b"]) == {f"{name}b": b"2"})
        assert store.delete([f"{name}a", f"{name}b"]) == 1

    def test_the_shortest_life(self, store, name):
        """A time to live of less than a millisecond is one."""
        store.put({f"{name}a": b"1"}, 0.0)

        until(lambda: store.get([f"{name}a"]) == {})

    def test_threads(self, store, name):
        """Eight threads put and get at once, and mix nothing up."""

        def work(number):
            for n in range(20):
                key = f"{name}{number}-{n}"
                store.put({key: key.encode()}, 60)
                assert store.get([key]) == {key: key.encode()}

        for thread in [Background(work, number) for number in range(8)]:
            thread.join(30)

    def test_a_put_is_all_or_nothing(self, launch, name):
        """Where the server's memory is full nothing of a put is written, and that is told; reading goes on."""
        server = launch(settings={"maxmemory": "8mb"})
        store = build_store(server.url)
        store.put({f"{name}a": b"1"}, 60)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "1mb")

        with pytest.raises(StoreUnavailable, match=r"has no memory left \(maxmemory\)\n  Raise maxmemory"):
            store.put({f"{name}{key}": b"2" for key in "abc"}, 60)

        assert store.get([f"{name}{key}" for key in "abc"]) == {f"{name}a": b"1"}
        store.close()


class TestWaiting:
    """How values are awaited: without polling, on one connection."""

    def test_what_is_there(self, store, name):
        """Waiting returns at once with all keys that exist."""
        store.put({f"{name}a": b"1", f"{name}b": b"2"}, 60)

        assert store.wait([f"{name}{key}" for key in "abc"], 30) == {f"{name}a": b"1", f"{name}b": b"2"}
        assert store.wait([f"{name}c"], 0.01) == {}
        assert store.wait([], 0.01) == {}

    def test_a_put_elsewhere_ends_it(self, server, store, name):
        """A put of another store object wakes the waiter, and only by the keys that it awaits."""
        other = build_store(server.url)
        wait = waiting(server, store, [f"{name}a", f"{name}b"])

        other.put({f"{name}other": b"0"}, 60)
        other.put({f"{name}b": b"2", f"{name}c": b"3"}, 60)

        assert wait.join() == {f"{name}b": b"2"}
        other.close()

    def test_nobody_polls(self, server, proxy, name):
        """A wait is three round trips, whatever else happens on the server meanwhile: to follow, to look, and to read."""
        proxy.target = server.port
        store = build_store(f"redis://127.0.0.1:{proxy.port}")
        other = build_store(server.url)
        before = proxy.round_trips
        wait = waiting(server, store, [f"{name}a"])
        for n in range(200):
            other.put({f"{name}b{n}": b"0"}, 60)

        other.put({f"{name}a": b"1"}, 60)

        assert wait.join() == {f"{name}a": b"1"}
        assert proxy.round_trips - before <= 3
        assert proxy.connections <= 2
        for each in (store, other):
            each.close()

    def test_keys_come_and_go(self, server, store, name):
        """From wait to wait keys are added, handed over, given up and asked for again; none is missed, none is left."""
        keys = [f"{name}{n}" for n in range(1200)]
        assert store.wait(keys, 0) == {}
        store.put({keys[0]: b"0", keys[1199]: b"1199"}, 60)
        assert store.wait(keys, 30) == {keys[0]: b"0", keys[1199]: b"1199"}
        assert store.wait(keys[:2], 30) == {keys[0]: b"0"}
        store.put({keys[1]: b"1"}, 60)
        assert store.wait(keys[1:3], 30) == {keys[1]: b"1"}
        store.delete([keys[1]])
        assert store.wait(keys[1:3], 0) == {}
        assert [followers(server, key) for key in (keys[0], keys[2], keys[500])] == [0, 1, 0]

        wait = waiting(server, store, [keys[3]])
        store.put({keys[2]: b"2"}, 60)
        store.put({keys[3]: b"3"}, 60)

        assert wait.join() == {keys[3]: b"3"}
        assert store.wait([], 0) == {}
        assert [followers(server, key) for key in keys[:4]] == [0, 0, 0, 0]

    def test_put_between_two_waits(self, store, name):
        """What is put while nobody waits is found by the next wait, also where its key was followed before."""
        assert store.wait([f"{name}a", f"{name}b"], 0) == {}
        store.put({f"{name}a": b"1"}, 60)

        assert store.wait([f"{name}b", f"{name}a"], 30) == {f"{name}a": b"1"}

    def test_wake(self, server, store, name):
        """``wake`` lets a wait return empty-handed, also one that starts just after it."""
        wait = waiting(server, store, [f"{name}a"])
        store.wake()
        assert wait.join() == {}

        store.wake()
        assert Background(store.wait, [f"{name}a"], 60).join() == {}
        store.put({f"{name}a": b"1"}, 60)
        assert store.wait([f"{name}a"], 60) == {f"{name}a": b"1"}

    def test_close(self, server, store, name):
        """``close`` lets a wait return; afterwards every use raises ``Closed``."""
        wait = waiting(server, store, [f"{name}a"])
        store.close()
        store.close()

        assert wait.join(1.0) == {}
        for use in (
            lambda: store.get(["a"]),
            lambda: store.put({}, 1),
            lambda: store.delete([]),
            lambda: store.wait([], 1),
        ):
            with pytest.raises(Closed):
                use()

    def test_put_of_another_process(self, server, store, name):
        """A put of another process ends the wait."""
        code = (
            "import sys; from boost_core.options import build_options\n"
            "from boost_store_redis.plugin import SPEC, RedisStoreOptions\n"
            "from boost_store_redis.store import RedisStore\n"
            "store = RedisStore(build_options('s', RedisStoreOptions, {'url': sys.argv[1]})); store.spec = SPEC\n"
            "store.open(); store.put({sys.argv[2]: b'done'}, 60); store.close()\n"
        )
        wait = waiting(server, store, [f"{name}result"])

        run_python(code, server.url, f"{name}result")

        assert wait.join() == {f"{name}result": b"done"}

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
    def test_fork(self, server, store, name):
        """A forked child opens a store of its own; the parent's goes on, its connections unharmed."""
        assert store.wait([f"{name}b"], 0) == {}
        child = os.fork()
        if child == 0:
            try:
                store.after_fork()
                fresh = build_store(server.url)
                fresh.put({f"{name}b": b"2"}, 60)
                fresh.close()
            except BaseException:
                os._exit(1)
            os._exit(0)

        assert os.waitpid(child, 0)[1] == 0
        assert store.wait([f"{name}b"], 30) == {f"{name}b": b"2"}


class TestTroubles:
    """Servers that are wrong, hostile, or go away."""

    def problem_of(self, url, **options):
        """Return the text of what opening raises."""
        with pytest.raises(StoreUnavailable) as caught:
            build_store(url, **options)
        return str(caught.value)

    def test_nothing_listens(self):
        """A port where nothing listens is named with the remedy."""
        (port,) = free_ports(1)
        problem = self.problem_of(f"redis://127.0.0.1:{port}")

        assert problem.startswith(f"store 'redis': the server at redis://127.0.0.1:{port} can't be reached: ")
        assert problem.endswith("Connection refused.\n  Mend url=, or start the server.")

    def test_wrong_password(self, launch):
        """A wrong password is told, and not shown."""
        url = launch(users={"me": "sesame"}).url.replace("sesame", "open")

        problem = self.problem_of(url)
        assert "refuses the login\n  Mend user and password in url=." in problem
        assert "open" not in problem

    def test_it_hangs(self, proxy):
        """A server that says nothing is given up within the time-out."""
        proxy.hang()
        opening = Background(lambda: self.problem_of(f"redis://127.0.0.1:{proxy.port}", timeout=0.3))

        assert "gives no answer within 0.3 s" in opening.join(5)

    def test_garbage(self, proxy):
        """What doesn't speak the protocol is told."""
        proxy.talk(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        assert "doesn't speak Redis' protocol" in self.problem_of(f"redis://127.0.0.1:{proxy.port}", timeout=2)

    @pytest.mark.parametrize(
        "rules", ["~boost* &nothing +@all", "~nothing &boost:* +@all", "~boost* &boost:* +@all -set"]
    )
    def test_permissions(self, launch, name, rules):
        """A user who lacks keys, channels or commands is told what to allow."""
        server = launch(settings={"user": ["default on nopass ~* &* +@all", f"me on >sesame {rules}"]})

        with pytest.raises(StoreUnavailable) as caught:
            build_store(server.url.replace("://", "://me:sesame@")).put({f"{name}a": b"1"}, 60)

        assert "refuses this user: " in str(caught.value)
        assert str(caught.value).endswith('Allow it: ACL SETUSER <user> +@all "~boost*" "&boost:*"')

    def test_a_user_of_its_own(self, launch, name):
        """A user with what the documentation names can do everything."""
        server = launch(settings={"user": ["default off", "me on >sesame ~boost* &boost:* +@all -@dangerous"]})
        store = build_store(server.url.replace("://", "://me:sesame@"))
        store.put({f"{name}a": b"1"}, 60)

        assert store.wait([f"{name}a"], 30) == {f"{name}a": b"1"}
        store.close()

    def test_replica(self, launch, name):
        """A replica's refusal to be written is told."""
        primary = launch()
        replica = launch(settings={"replicaof": f"127.0.0.1 {primary.port}"})
        store = build_store(replica.url)

        with pytest.raises(StoreUnavailable, match="is a replica, which can't be written"):
            store.put({f"{name}a": b"1"}, 60)
        store.close()

    def test_a_server_that_drops_keys(self, launch, caplog):
        """Where results may be dropped to make room, a warning says so."""
        server = launch(settings={"maxmemory-policy": "allkeys-lru"})
        with caplog.at_level(logging.WARNING):
            build_store(server.url).close()

        assert caplog.messages == [
            f"the server at {server.url} may drop results before they are read (maxmemory-policy allkeys-lru)"
        ]

    def test_cut_while_waiting(self, server, proxy, name):
        """A wait whose connection is cut raises; the next one dials anew and misses nothing."""
        proxy.target = server.port
        store, other = build_store(f"redis://127.0.0.1:{proxy.port}"), build_store(server.url)
        wait = waiting(server, store, [f"{name}a"])
        proxy.cut()
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            wait.join()

        other.put({f"{name}a": b"1"}, 60)

        assert store.wait([f"{name}a"], 30) == {f"{name}a": b"1"}
        for each in (store, other):
            each.close()

    def test_cut_between_two_waits(self, server, proxy, name):
        """A connection that broke while nobody waited is noticed by the next wait, which just works."""
        proxy.target = server.port
        store, other = build_store(f"redis://127.0.0.1:{proxy.port}"), build_store(server.url)
        assert store.wait([f"{name}a"], 0) == {}
        proxy.cut()
        until(lambda: proxy.connections == 0)
        other.put({f"{name}a": b"1"}, 60)

        assert store.wait([f"{name}a"], 30) == {f"{name}a": b"1"}
        for each in (store, other):
            each.close()

    def test_a_silent_connection_is_noticed(self, server, proxy, name):
        """A connection that hears nothing any more, without being closed, fails the next wait within the time-out."""
        proxy.target = server.port
        store = build_store(f"redis://127.0.0.1:{proxy.port}", timeout=0.3)
        assert store.wait([f"{name}a"], 0) == {}
        proxy.hang()

        with pytest.raises(StoreUnavailable, match=r"gives no answer within 0\.3 s"):
            Background(store.wait, [f"{name}a"], 60).join()
        store.close()

    def test_close_while_the_server_hangs(self, server, proxy, name):
        """Closing frees a wait that hangs on a server that says nothing."""
        proxy.target = server.port
        store = build_store(f"redis://127.0.0.1:{proxy.port}", timeout=5)
        assert store.wait([f"{name}a"], 0) == {}
        proxy.hang()
        wait = Background(store.wait, [f"{name}b"], 60)
        until(lambda: store._waiting.locked())

        store.close()

        assert wait.join(1.0) == {}

    def test_restart(self, launch, name):
        """What was put before a server was killed is there after its restart; the same store goes on."""
        server = launch()
        store = build_store(server.url)
        store.put({f"{name}a": b"1"}, 600)
        assert store.wait([f"{name}b"], 0) == {}
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.put({f"{name}b": b"2"}, 600)
        server.start()

        assert store.wait([f"{name}a", f"{name}b"], 30) == {f"{name}a": b"1"}
        store.put({f"{name}b": b"2"}, 600)
        assert store.wait([f"{name}b"], 30) == {f"{name}b": b"2"}
        store.close()


def run_python(code, *arguments):
    """Run code in a fresh interpreter; return its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://me:sesame@host", "its scheme is 'http'; give one of redis, rediss,"),
        ("rediss:", "valkeys, and '://' behind it"),
        ("unix:/run/redis.sock", "its scheme is 'unix'; give one of redis,"),
        ("redis://host:port", "Port could not be cast"),
        ("redis://host/prod", "it has the number of a database, or nothing"),
        ("redis://host?socket_timeout=5", "its parameter 'socket_timeout' is unknown; there are db, ssl_ca"),
        ("redis://host?db=x", "its parameter 'db' must be a number"),
        ("rediss://host?ssl_cert_reqs=foo", "'ssl_cert_reqs' must be none, optional or required"),
    ],
)
def test_odd_urls(url, problem):
    """A URL that isn't one of a Redis server, or has what the client doesn't take, is a ``BadOption`` with the reason."""
    with pytest.raises(BadOption) as caught:
        build_options("store 'redis'", RedisStoreOptions, {"url": url})

    assert problem in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_odd_options():
    """A time-out of nothing is a ``BadOption``; secrets don't show."""
    with pytest.raises(BadOption, match="it must be over 0 seconds"):
        build_options("store 'redis'", RedisStoreOptions, {"timeout": 0})

    assert "sesame" not in repr(build_options("store 'redis'", RedisStoreOptions, {"url": "redis://me:sesame@host"}))


@pytest.mark.parametrize("scheme", ["valkey", "redis-stream"])
def test_urls_of_brokers(server, name, scheme):
    """The URLs of the brokers that it goes with are good for the store too."""
    store = build_store(server.url.replace("redis", scheme, 1))
    store.put({f"{name}a": b"1"}, 60)

    assert store.get([f"{name}a"]) == {f"{name}a": b"1"}
    store.close()


def test_plugin_imports_no_client():
    """The light module names what core needs, without importing the client."""
    code = "import sys, boost_store_redis.plugin; print({'redis', 'hiredis'} & set(sys.modules))"

    assert run_python(code) == "set()\n"
    assert plugin.boost_stores() == [SPEC]
