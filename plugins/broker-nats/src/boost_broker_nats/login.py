"""How to log in: addresses, secrets and certificates, as nats-py takes them."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nats.errors
from boost_core.plugin import Secret
from nats.aio.client import Client

from boost_broker_nats.plugin import NatsOptions, split_urls
from boost_broker_nats.trouble import BadFile

_MARKS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


def login_settings(options: NatsOptions, client: Client) -> dict[str, Any]:
    """Return what ``client.connect`` takes of these options.

    nats-py speaks TLS where the server asks for it. Where the user asks for it, by the URL or by a certificate, secrets
    are only given away once the server has asked too: nats-py fetches them that late if they are functions.
    """
    urls = [urllib.parse.urlsplit(url) for url in split_urls(options.url)]
    secured = any(url.scheme == "tls" for url in urls) or bool(options.tls_ca or options.tls_cert)
    user, password, token = _secrets(options, next((url for url in urls if url.username), urls[0]))

    def checked(secret: str | None) -> Callable[[], str] | None:
        def give() -> str:
            assert secret is not None
            if secured and not client._server_info.get("tls_required"):  # nats-py has no other way to ask
                raise nats.errors.Error("the server speaks no TLS")
            return secret

        return None if secret is None else give

    return {
        "servers": [f"{url.scheme}://{url.netloc.rpartition('@')[2]}" for url in urls],
        # Without a login there is nothing to give away, and an empty token is as good as none.
        "user": checked(user),
        "password": checked(password),
        "token": checked(token if token or not secured or user else ""),
        "user_credentials": _checked_credentials(options.credentials),
        "nkeys_seed": _checked_seed(options.nkey),
        "tls": _context(options) if secured else None,
    }


def _secrets(options: NatsOptions, url: urllib.parse.SplitResult) -> tuple[str | None, str | None, str | None]:
    """Return user, password and token; in a URL a lone name is a token, as nats-py has it."""
    user, password, token = options.user, _revealed(options.password), _revealed(options.token)
    if url.username and url.password is None:
        token = urllib.parse.unquote(url.username)
    elif url.username:
        user, password = urllib.parse.unquote(url.username), urllib.parse.unquote(url.password or "")
    return user, password, token


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _checked_credentials(path: str | None) -> str | None:
    """Return the path of a file that nats-py can read: in others it looks for a JWT for ever."""
    if path is not None:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        for mark in _MARKS:
            if mark not in text:
                raise BadFile(f"{path!r} (option credentials) has no line {mark!r}")
    return path


def _checked_seed(path: str | None) -> str | None:
    if path is not None:
        import nkeys  # type: ignore[import-untyped]  # it loads a library of cryptography

        try:
            nkeys.from_seed(bytearray(Path(path).read_bytes().strip()))
        except (nkeys.NkeysError, ValueError) as error:  # the latter where it has the wrong length
            raise BadFile(f"{path!r} (option nkey) has no seed of an nkey") from error
    return path


def _context(options: NatsOptions) -> ssl.SSLContext:
    for path in filter(None, (options.tls_ca, options.tls_cert, options.tls_key)):
        Path(path).read_bytes()  # its error names the file, which ssl's doesn't
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except ssl.SSLError as error:
        raise BadFile(f"{options.tls_ca!r} (option tls_ca) has no certificate") from error
    if options.tls_cert:
        try:
            context.load_cert_chain(options.tls_cert, options.tls_key)
        except ssl.SSLError as error:
            key = f" in {options.tls_key!r} (option tls_key)" if options.tls_key else ""
            raise BadFile(f"{options.tls_cert!r} (option tls_cert) has no certificate with its key{key}") from error
    return context
