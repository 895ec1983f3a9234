"""Servers that say what no real one can be brought to say."""

from __future__ import annotations

import re
import socket
import threading


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


class Dripping(Impostor):
    """One that says "nothing" so slowly that each byte comes well within a second, and it isn't said in one."""

    def _serve(self):
        with self._door.accept()[0] as connection:
            connection.recv(65536)
            for byte in b"*1\r\n$-1\r\n":
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                threading.Event().wait(0.4)
