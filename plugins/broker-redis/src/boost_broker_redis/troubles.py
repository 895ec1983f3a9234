"""What errors of the client mean, and what to do about each."""

from __future__ import annotations

from typing import Final

import attrs
from boost_core.plugin import Finding
from redis import exceptions


class SilentTls(exceptions.TimeoutError):
    """No answer to the beginning of TLS: what a port without TLS does, which takes it for half a line."""


class PatchedTls(exceptions.ConnectionError):
    """TLS where gevent or eventlet has patched the process: its sockets belong to the threads that made them."""


@attrs.define(eq=False)
class Unfit(exceptions.RedisError):
    """A server that answers, and that a broker must not work on."""

    finding: Finding


_ACCESS: Final = 'Allow it: ACL SETUSER <user> +@all "~boost*" "&boost:*"'
_URL: Final = "Mend url=, or start the server."
_TEXTS: Final = (
    # what the server's answer begins with, what that means, what to do
    ("WRONGPASS", "refuses the login", "Mend user and password in url=."),
    ("NOAUTH", "wants a password", "Give user and password in url=: redis://user:password@host."),
    ("NOPERM", "refuses this user: {error}", _ACCESS),
    ("ERR The user executing the script", "refuses this user: {error}", _ACCESS),
    ("OOM", "has no memory left (maxmemory)", "Raise maxmemory, or let workers empty the queues: they can go on."),
    ("MISCONF", "can't write to its disk, and takes nothing", "Make room on its disk, and see its log."),
    ("READONLY", "is a replica, which can't be written", "Mend url=: it must name the primary."),
    ("LOADING", "is still loading its data", "Wait, or raise timeout=."),
    ("MASTERDOWN", "is a replica that has lost its primary", "Mend url=: it must name the primary."),
    ("BUSY", "is busy with another program's script", "See SLOWLOG GET; SCRIPT KILL ends it."),
    ("NOREPLICAS", "has too few replicas to take writes (min-replicas-to-write)", "See its replicas."),
    (
        "WRONGTYPE",
        "has other programs' keys where a queue's should be",
        "Remove them, or name another database in url=.",
    ),
    ("max number of clients", "takes no more connections (maxclients)", "Raise maxclients."),
    ("unknown command", "lacks what is needed: {error}", "Use Redis 6.2 or newer, or Valkey, no command renamed."),
)


_KINDS: Final = (
    # the client's own errors
    (
        PatchedTls,
        "speaks TLS, which isn't possible in a process that gevent or eventlet has patched",
        "Reach it through a tunnel, or run these tasks in a process that isn't patched.",
    ),
    (SilentTls, "doesn't answer in TLS within {timeout:g} s", "A plain port is reached by redis://, not rediss://."),
    ((exceptions.TimeoutError, TimeoutError), "gives no answer within {timeout:g} s", _URL),
    (
        exceptions.InvalidResponse,
        "doesn't speak Redis' protocol",
        "Mend url=: what listens there is something else.",
    ),
)


def explain(error: Exception, timeout: float) -> tuple[str, str]:
    """Return what is wrong with the server ("refuses the login") and the remedy."""
    if isinstance(error, Unfit):
        return error.finding.text, error.finding.remedy or ""
    for kind, problem, fix in _KINDS:
        if isinstance(error, kind):
            return problem.format(timeout=timeout), fix
    said = answer_of(error)
    for begin, problem, fix in _TEXTS:
        # Redis 6 puts the error of a command behind where in a script it was.
        if said.startswith(begin) or f"-{begin} " in said or (begin[0].islower() and begin in said):
            return problem.format(error=error), fix
    if isinstance(error, exceptions.ResponseError):
        return f"answers: {said}", "See the server's log."
    return _unreachable(str(error))


def answer_of(error: Exception) -> str:
    """Return what the server said: redis-py takes the first word away where it has a class for it."""
    word = getattr(error, "status_code", None)
    return f"{word} {error}" if word else str(error)


def _unreachable(text: str) -> tuple[str, str]:
    if "WRONG_VERSION_NUMBER" in text or "record layer" in text:
        return "doesn't speak TLS", "Use redis:// instead of rediss://, or the server's tls-port."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0] or text
        return (
            f"shows a certificate that isn't trusted ({reason})",
            "Name its authority: rediss://host?ssl_ca_certs=file.",
        )
    if "losed" in text or "reset" in text:
        return "closed the connection", "See its log; a port for TLS is reached by rediss://."
    if "refused" in text:
        return "refuses connections: nothing listens there", _URL
    return f"can't be reached: {text}", _URL


def has_left(error: Exception) -> bool:
    """Return whether the server says that it isn't our primary any more: dialling again may find another."""
    return answer_of(error).startswith(("READONLY", "MASTERDOWN", "NOAUTH", "LOADING"))
