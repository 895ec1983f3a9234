"""What went wrong with a server, in words, and what to do about it."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final

import amqp
from amqp.exceptions import AccessRefused, NotAllowed
from boost_core.plugin import BrokerUnavailable

from boost_broker_rabbitmq.address import Address
from boost_broker_rabbitmq.connection import OLDEST, OutOfReach, TooOld
from boost_broker_rabbitmq.wire import NoAmqp

NAME: Final = "rabbitmq"
_TLS_ALERT: Final = b"\x15\x03"
_OTHER_PROTOCOL: Final = "Another server listens there: correct the host or the port."


def reason_of(error: BaseException) -> str:
    """Return an error of py-amqp or of the system in a few words."""
    if isinstance(error, amqp.AMQPError):
        return str(error.reply_text or error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def unreachable(error: BaseException, address: Address, host: str, port: int) -> BrokerUnavailable:
    """Return why a server can't be used, as was found out when it was dialled."""
    problem, fix = _explained(error, address, f"{host}:{port}")
    return BrokerUnavailable(NAME, problem, fix)


def _explained(error: BaseException, address: Address, place: str) -> tuple[str, str]:
    if isinstance(error, NoAmqp):
        if error.head.startswith(_TLS_ALERT):
            return f"{place} speaks TLS, and was spoken to without", "Write amqps:// instead of amqp://."
        return f"{place} answers {error.head!r}, which isn't AMQP 0-9-1", _OTHER_PROTOCOL
    if isinstance(error, ssl.SSLError):
        return _untrusted(error, place)
    if isinstance(error, (TimeoutError, ConnectionRefusedError, socket.gaierror)):
        return _unanswered(error, address, place)
    return _refused(error, address, place)


def _untrusted(error: ssl.SSLError, place: str) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = f"the certificate of {place} can't be trusted: {error.verify_message}"
        return problem, "Name the authority's file in the option tls_ca, and the host as the certificate has it."
    problem = f"TLS with {place} failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    return problem, "Write amqp:// where the port speaks no TLS; the usual port with TLS is 5671."


def _unanswered(error: OSError, address: Address, place: str) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return f"{place} didn't answer in time", "Look whether it hangs, or whether a firewall is in between."
    if isinstance(error, ConnectionRefusedError):
        problem = f"nothing listens at {place}"
        return problem, f"Start RabbitMQ there, or correct the url {address.shown}; the usual port is 5672."
    return f"the host of {place} isn't known: {error.strerror}", f"Correct the url {address.shown}."


def _refused(error: BaseException, address: Address, place: str) -> tuple[str, str]:
    text = reason_of(error)
    if isinstance(error, TooOld):
        oldest = ".".join(map(str, OLDEST))
        problem = f"{place} is {error.product} {error.version}; it must be RabbitMQ {oldest} or later"
        return problem, "Upgrade the server: delays and times to live rest on what came then."
    if isinstance(error, AccessRefused):
        problem = f"{place} refused the login of user {address.user!r}: wrong user or password"
        return problem, f"Correct the url {address.shown}. The user guest may log in on the server's own host only."
    if isinstance(error, NotAllowed) and "not found" in text:
        problem = f"{place} has no vhost {address.vhost!r}"
        return problem, f"Correct the url {address.shown}, or run: rabbitmqctl add_vhost {address.vhost}"
    if isinstance(error, NotAllowed) and "refused" in text:
        problem = f"user {address.user!r} may not use the vhost {address.vhost!r} of {place}"
        return problem, f"Run: rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'"
    return f"{place} can't be used: {text}", f"See the server's log, and the url {address.shown}."


_REFUSED: Final = re.compile(r"access to (\w+) '(.*)' in vhost '(.*)' refused for user '(.*)'")


def out_of_reach(error: OutOfReach) -> BrokerUnavailable:
    """Return the error for a queue whose node is down."""
    text = reason_of(error)
    fix = 'Start that node, or see its log. Queues with queue_type="quorum" outlive a node of several.'
    return BrokerUnavailable(NAME, text.partition(" - ")[2] or text, fix)


def forbidden(error: AccessRefused, wanted: str) -> BrokerUnavailable:
    """Return the error for what a user may not do; ``wanted`` is what it was about: configure, write or read."""
    text = reason_of(error)
    found = _REFUSED.search(text)
    if found is None:
        return BrokerUnavailable(NAME, text.partition(" - ")[2] or text, "See the server's log.")
    kind, name, vhost, user = found.groups()
    problem = f"user {user!r} may not {wanted} {kind} {name!r} in vhost {vhost!r}"
    return BrokerUnavailable(NAME, problem, f"Give the right with: rabbitmqctl set_permissions -p {vhost} {user} ...")
