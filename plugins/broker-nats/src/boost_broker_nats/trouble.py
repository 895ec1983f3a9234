"""What went wrong while dialling, and what is to be done about it."""

from __future__ import annotations

import ssl
from typing import Final

from boost_core.plugin import BrokerUnavailable

NEEDED: Final = (
    "Allow the user to publish to boost.>, $JS.API.> and $JS.ACK.>, and to subscribe to {inbox}.> (option inbox)."
)
"""The permissions that a publisher and a worker need."""

NO_JETSTREAM: Final = "Give the server's configuration a jetstream section (and the account jetstream: enabled)."

_SAID: Final = {
    "authorization violation": (
        "the server refuses the login",
        "Mend the login in the URL, or the options user, password, token, credentials and nkey.",
    ),
    "expecting info message": (
        "what answers there is no NATS server",
        "Mend host and port in the URL: clients speak to the server's port, 4222 by default.",
    ),
    "no tls": (
        "the server speaks no TLS, so nothing was sent to it",
        "Give nats:// instead of tls://, and no certificates, where plain text will do, or the server a tls section.",
    ),
}


_FULL: Final = {
    "insufficient resources": "raise max_file_store in its jetstream section",
    "resource limits exceeded for account": "raise max_file in the account's jetstream section",
}


class BadFile(Exception):
    """A file that an option names isn't what it should be."""


def refusal(description: str) -> str:
    """Return why the server didn't store a message, with the remedy where JetStream has no room."""
    remedy = _FULL.get(description)
    return f"the server refuses: {description}" + (f" ({remedy}, or let workers make room)" if remedy else "")


def is_final(error: BaseException) -> bool:
    """Tell whether dialling again at once is of no use: it is the log-in or the encryption that is amiss."""
    said = str(error).lower()
    return isinstance(error, ssl.SSLError) or any(words in said for words in _SAID)


def explain(broker: str, where: str, error: BaseException, timeout: float) -> BrokerUnavailable:
    """Return why there is no connection, with the remedy."""
    said = str(error).lower()
    for words, (problem, fix) in _SAID.items():
        if words in said:
            return BrokerUnavailable(broker, f"{problem} ({where})", fix)
    if isinstance(error, TimeoutError):
        problem = f"no answer within {timeout:g} s ({where})"
        return BrokerUnavailable(broker, problem, "Mend host and port in the URL, or see why the server hangs.")
    if isinstance(error, ssl.SSLError):
        problem = f"TLS failed ({where}): {error.reason or error}"
        return BrokerUnavailable(broker, problem, "Name the server's authority by the option tls_ca.")
    if isinstance(error, BadFile):
        return BrokerUnavailable(broker, str(error), "Mend the file, or the option that names it.")
    if isinstance(error, OSError) and error.filename is not None:
        problem = f"the file {error.filename!r} can't be read: {error.strerror}"
        return BrokerUnavailable(broker, problem, "Mend the option that names it.")
    return BrokerUnavailable(broker, f"can't connect ({where}): {error}", "Start the server, or mend the URL.")
