"""What errors of the client mean, and what to do about each."""

from __future__ import annotations

from typing import Final

from redis import exceptions

_URL: Final = "Mend url=, or start the server."
_ACCESS: Final = 'Allow it: ACL SETUSER <user> +@all "~boost*" "&boost:*"'
_ANSWERS: Final = (
    # what the server's answer begins with, what that means, what to do
    ("WRONGPASS", "refuses the login", "Mend user and password in url=."),
    ("NOAUTH", "wants a password", "Give user and password in url=: redis://user:password@host."),
    ("NOPERM", "refuses this user: {error}", _ACCESS),
    ("ERR The user executing the script", "refuses this user: {error}", _ACCESS),
    ("OOM", "has no memory left (maxmemory)", "Raise maxmemory, or keep results for less time: result_ttl."),
    ("READONLY", "is a replica, which can't be written", "Mend url=: it must name the primary."),
    ("LOADING", "is still loading its data", "Wait, or raise timeout=."),
    ("MISCONF", "can't write to its disk, and takes nothing", "Make room on its disk, and see its log."),
)


def explain(error: Exception, timeout: float) -> tuple[str, str]:
    """Return what is wrong with the server ("refuses the login") and the remedy."""
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return f"gives no answer within {timeout:g} s", _URL
    if isinstance(error, exceptions.InvalidResponse) or "not ready" in str(error):  # it speaks before it is asked
        return "doesn't speak Redis' protocol", "Mend url=: what listens there is something else."
    word = getattr(error, "status_code", None)  # redis-py takes it away where it has a class for it
    said = f"{word} {error}" if word else str(error)
    for begin, problem, fix in _ANSWERS:
        if said.startswith(begin):
            return problem.format(error=error), fix
    if isinstance(error, exceptions.ResponseError):
        return f"answers: {said}", "See the server's log."
    return f"can't be reached: {said}", _URL
