"""URLs of Redis servers, as the broker's and the store's plugin take them and their client reads them."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Final

from boost_core.options import Secret

DEFAULT: Final = "redis://localhost:6379/0"

_TRANSPORTS: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "redis-stream": "redis",
    "rediss-stream": "rediss",
    "unix-stream": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
_TEXT: Final = (".+", "not empty")
_PARAMETERS: Final = {
    # what may stand behind the question mark, as redis-py names it; how a value looks, and how that is told
    "db": ("[0-9]{1,9}", "a number"),
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_ca_data": ("[\\x00-\\x7f]+", "certificates in PEM"),
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required"),
    "ssl_check_hostname": ("(?i:true|false|yes|no|1|0)", "true or false"),
    "ssl_certfile": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_password": _TEXT,
    "ssl_min_version": ("771|772", "771 (TLS 1.2) or 772 (TLS 1.3)"),
    "ssl_ciphers": _TEXT,
}
_DATABASE: Final = re.compile(r"(/[0-9]{0,9})?")


def problem_of(value: Secret | None) -> str | None:
    """Return what is wrong with a URL, or None. Raises ``ValueError`` where it is none. No value is shown."""
    if value is None:
        return None
    parts = urllib.parse.urlsplit(value.reveal())
    transport, _ = _divided(value.reveal())
    if transport is None:
        return f"its scheme is {parts.scheme!r}; give one of {', '.join(_TRANSPORTS)}, and '://' behind it"
    if transport == "unix" and not parts.path:
        return "behind unix:// it has the path of a socket"
    if transport != "unix" and (parts.port == 0 or not _DATABASE.fullmatch(parts.path)):
        return "behind host and port it has the number of a database, or nothing"
    if not _is_host(urllib.parse.unquote(parts.hostname or "")):
        return "its host's name has an empty part, or one of over 63 characters"
    return _problem_of_parameters(urllib.parse.parse_qs(parts.query, keep_blank_values=True), transport)


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")  # what the look-up of a name does, which raises more than errors of the system
    except UnicodeError:
        return False
    return True


def _problem_of_parameters(given: Mapping[str, Sequence[str]], transport: str) -> str | None:
    for name, values in given.items():
        if name not in _PARAMETERS:
            return f"its parameter {name!r} is unknown; there are {', '.join(_PARAMETERS)}"
        if name != "db" and transport != "rediss":
            return f"its parameter {name!r} is for TLS, and {transport}:// speaks none"
        pattern, wanted = _PARAMETERS[name]
        if not re.fullmatch(pattern, values[0], re.DOTALL):
            return f"its parameter {name!r} must be {wanted}"
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        return "its parameter 'ssl_keyfile' goes with 'ssl_certfile'"
    return None


def client_url(url: str) -> str:
    """Return a URL as the client knows it, which has three schemes."""
    transport, rest = _divided(url)
    return f"{transport}://{rest}"


def _divided(url: str) -> tuple[str | None, str]:
    """Return what carries a URL's connections, and what is behind its scheme. None where it begins otherwise."""
    scheme, _, rest = url.partition("://")
    return _TRANSPORTS.get(scheme.lower()), rest
