"""One real server: started on ports and in a folder of its own, killed, paused, stopped, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

from launcher.certificates import Certificates
from launcher.errors import LauncherError, StartFailed, Unavailable
from launcher.ports import HOST, free_ports, is_served
from launcher.tree import Tree

_GUARD: Final = Path(__file__).with_name("guard.py")
_INHERITED: Final = ("PATH", "JAVA_HOME", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(eq=False, kw_only=True)
class Server(ABC):
    """What every kind of server can do. A server that runs in the folder already is taken over as it is.

    ``users`` are names and passwords of those who may do everything; without any, nobody is asked. ``strangers`` may
    log in and do nothing else. With ``tls`` the port speaks TLS only. ``settings`` are the server's own, and win over
    ours.
    """

    folder: Path
    users: Mapping[str, str] = field(default_factory=dict)
    strangers: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    NAME: ClassVar[str]
    SCHEMES: ClassVar[tuple[str, str]]  # of a URL: plain, TLS
    PORTS: ClassVar[tuple[str, ...]] = ("client",)
    READY_WITHIN: ClassVar[float] = 60

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).absolute()
        self.ports: dict[str, int] = {}
        self.pid = 0
        self._tree: Tree | None = None
        self._process: subprocess.Popen[str] | None = None
        self._certificates = Certificates(self.folder / "tls")
        self._read_record()

    # What each kind says of itself.

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why this kind can't be started here, with the remedy; None where it can."""

    @classmethod
    @abstractmethod
    def install(cls) -> None:
        """Install what is missing; raise ``Unavailable`` where that can't be."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Write the configuration; return the command that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server's protocol answers."""

    def _environment(self) -> dict[str, str]:
        return {}

    # Where it is.

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.ports["client"]

    @property
    def ca(self) -> Path | None:
        """The authority that clients must trust, where the server speaks TLS."""
        return self._certificates.ca if self.tls else None

    @property
    def url(self) -> str:
        """Where the first user reaches it."""
        return self.url_for(next(iter(self.users), ""))

    def url_for(self, user: str) -> str:
        """Return where a user, or a stranger, reaches it."""
        password = {**self.strangers, **self.users}.get(user)
        login = "" if password is None else f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return f"{self.SCHEMES[self.tls]}://{login}{HOST}:{self.port}{self._path()}"

    def _path(self) -> str:
        return ""

    # How it lives.

    @property
    def running(self) -> bool:
        """Tell whether it runs, or is paused."""
        return self._tree is not None and self._tree.alive

    @property
    def paused(self) -> bool:
        """Tell whether it is paused."""
        return self._tree is not None and self._tree.stopped

    def start(self, *, lasting: bool = False) -> Self:
        """Return once it answers: on the same ports and data as before, if there was a before.

        It ends with the process that started it, unless it is ``lasting``.
        """
        if self.running:
            raise LauncherError(
                f"{self.NAME} runs already in {self.folder} (process {self.pid}): stop or kill it first"
            )
        if reason := self.missing():
            raise Unavailable(f"{self.NAME}: {reason}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if foreign := [port for port in self.ports.values() if is_served(port)]:
            raise StartFailed(
                f"{self.NAME}: another program listens on port {foreign[0]}, which was its own: end that program, "
                f"or remove {self.folder} for a new server"
            )
        if not self.ports:
            self.ports = dict(zip(self.PORTS, free_ports(len(self.PORTS)), strict=True))
        if self.tls:
            self._certificates.make()
        self._spawn(self._prepare(), 0 if lasting else os.getpid())
        self._await_answer()
        return self

    def stop(self, seconds: float = 15) -> None:
        """Ask it to end, and kill what is left after that time. Does nothing where it doesn't run."""
        if self._tree is not None and self.running:
            self.resume()
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            self._tree.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL with all its processes; return when they are gone. Does nothing where it doesn't run."""
        if self._tree is not None:
            self._tree.kill()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop all its processes where they are; connections stay open and hear nothing."""
        tree = self._living()
        while tree.alive and not tree.stopped:  # one with many threads takes a moment, and may have children meanwhile
            tree.signal(signal.SIGSTOP)
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._living().signal(signal.SIGCONT)

    def processes(self) -> list[int]:
        """Return the ids of all its processes, the server's own guard first; none where it doesn't run."""
        return [self._tree.guard, *self._tree.members()] if self._tree is not None and self.running else []

    def memory(self) -> int:
        """Return how many bytes all its processes hold, shared ones in proportion."""
        return self._tree.memory() if self._tree else 0

    @property
    def log_path(self) -> Path:
        """The file with all that it has printed since its first start."""
        return self.folder / "server.log"

    def log(self) -> str:
        """Return all that it has printed since its first start."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _living(self) -> Tree:
        if self._tree is None or not self.running:
            raise LauncherError(f"{self.NAME} doesn't run in {self.folder}: start it first")
        return self._tree

    def _spawn(self, command: list[str], starter: int) -> None:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environ = {**inherited, "HOME": str(self.folder), "LANG": "C.UTF-8", **self._environment()}
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(starter), *command],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # an interrupt from the keyboard is the tests' to handle
            )
        assert self._process.stdout is not None
        with self._process.stdout as told:
            self.pid = int(told.readline() or 0)
        with suppress(OSError):  # it has ended already, and the log says why
            self._tree = Tree.of(self._process.pid)
            self._write_record()

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.READY_WITHIN
        while not self._answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.kill()
                end = "didn't answer in time" if code is None else f"ended with exit code {code}"
                last = "\n".join(self.log().splitlines()[-20:])
                raise StartFailed(f"{self.NAME} {end}; the end of {self.log_path}:\n{last}")
            time.sleep(0.02)

    @property
    def _record(self) -> Path:
        return self.folder / "server.json"

    def _write_record(self) -> None:
        assert self._tree is not None
        facts = {"name": self.NAME, "pid": self.pid, "ports": self.ports}
        facts |= {"guard": self._tree.guard, "started": self._tree.started}
        self._record.write_text(json.dumps(facts), encoding="utf-8")

    def _read_record(self) -> None:
        if not self._record.exists():
            return
        facts = json.loads(self._record.read_text(encoding="utf-8"))
        if facts["name"] != self.NAME:
            raise LauncherError(
                f"{self.folder} holds the data of {facts['name']}, not {self.NAME}: choose another folder"
            )
        self.pid, self.ports = facts["pid"], facts["ports"]
        self._tree = Tree(facts["guard"], facts["started"])
