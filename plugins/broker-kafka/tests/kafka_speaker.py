"""A server that speaks as much of Kafka's protocol, in the versions of a release, as asking for topics takes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

METADATA, API_VERSIONS = 3, 18
UNSUPPORTED_VERSION = 35

KAFKA_2_2 = dict(enumerate((7, 10, 5, 7, 2, 1, 5, 2, 6, 5, 2, 4, 2, 2, 2, 2, 2, 1, 0, 3, 3, 1, 1)))
"""The newest version of each request."""


class Speaker:
    """One node, which has every topic that it is asked for, with one partition.

    Once it is ``fenced`` it knows of no node, itself included: so answers a server that its controller hasn't heard of
    for some seconds.
    """

    def __init__(self, versions):
        self._versions = versions
        self.fenced = False
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._talks = []
        self._guests = []
        self._welcomes = threading.Thread(target=self._welcome, daemon=True)
        self._welcomes.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._door.shutdown(socket.SHUT_RDWR)
        self._welcomes.join()
        self._door.close()
        for guest in self._guests:
            with contextlib.suppress(OSError):  # it has left
                guest.shutdown(socket.SHUT_RDWR)
        for talk in self._talks:
            talk.join()

    def _welcome(self):
        while True:
            try:
                guest, _ = self._door.accept()
            except OSError:
                return
            self._guests.append(guest)
            self._talks.append(threading.Thread(target=self._serve, args=(guest,), daemon=True))
            self._talks[-1].start()

    def _serve(self, guest):
        with guest, guest.makefile("rb") as said:
            while len(head := said.read(4)) == 4:
                request = said.read(int.from_bytes(head))
                key, version, correlation, name = struct.unpack_from(">hhih", request)
                answer = struct.pack(">i", correlation) + self._answer(key, version, request[10 + name :])
                guest.sendall(len(answer).to_bytes(4) + answer)

    def _answer(self, key, version, request):
        if key == API_VERSIONS:
            error = 0 if version <= self._versions[key] else UNSUPPORTED_VERSION
            rows = (struct.pack(">hhh", one, 0, newest) for one, newest in self._versions.items())
            return struct.pack(">hi", error, len(self._versions)) + b"".join(rows)
        assert (key, version) == (METADATA, 7), (key, version)
        node = struct.pack(">i", 1) + _text(b"127.0.0.1") + struct.pack(">ih", self.port, -1)
        nodes = [] if self.fenced else [node]
        topics = list(_topics(request))
        head = struct.pack(">ii", 0, len(nodes)) + b"".join(nodes)
        head += _text(b"cluster") + struct.pack(">ii", 1, len(topics))
        partition = struct.pack(">hiii iiii i", 0, 0, -1 if self.fenced else 1, 0, 1, 1, 1, 1, 0)
        return head + b"".join(
            struct.pack(">h", 0) + _text(one) + struct.pack(">bi", 0, 1) + partition for one in topics
        )


def _topics(request):
    """Yield the topics that a request for metadata names."""
    (count,) = struct.unpack_from(">i", request)
    at = 4
    for _ in range(count):
        (length,) = struct.unpack_from(">h", request, at)
        yield request[at + 2 : at + 2 + length]
        at += 2 + length


def _text(text):
    return struct.pack(">h", len(text)) + text
