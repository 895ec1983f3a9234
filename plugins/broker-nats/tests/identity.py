"""Who logs in without a password: nkeys, and users with credentials of an account and its operator."""

from __future__ import annotations

import base64
import hashlib
import json
import os

import nkeys

NO_LIMIT = -1


def new_key(prefix=nkeys.PREFIX_BYTE_USER):
    """Return a new key pair; its ``seed`` is text."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return nkeys.from_seed(bytearray(seed))


def public(key):
    """Return the public half of a key, as text."""
    return key.public_key.decode()


def write_seed(path, key):
    """Write the seed of an nkey into a file."""
    path.write_bytes(bytes(key.seed))
    return str(path)


def _jwt(issuer, subject, name, claims):
    body = {"iat": 1_700_000_000, "iss": public(issuer), "name": name, "sub": subject, "nats": claims}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    parts = [_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
    return ".".join([*parts, _encoded(issuer.sign(".".join(parts).encode()))])


def _encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def write_credentials(path):
    """Write a user's credentials file; return its path, and the settings of a server that knows the user's account."""
    operator, account, user = new_key(nkeys.PREFIX_BYTE_OPERATOR), new_key(nkeys.PREFIX_BYTE_ACCOUNT), new_key()
    system = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    stores = dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], NO_LIMIT)
    users = _jwt(operator, public(account), "account", _account(stores))
    operators = _jwt(operator, public(system), "system", _account({}))
    claims = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
    user_jwt = _jwt(account, public(user), "user", claims)
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n------END USER NKEY SEED------\n",
        encoding="ascii",
    )
    claims = {"type": "operator", "version": 2, "system_account": public(system)}
    settings = {
        "operator": _jwt(operator, public(operator), "operator", claims),
        "resolver": "MEMORY",
        "resolver_preload": {public(account): users, public(system): operators},
    }
    return str(path), settings


def _account(limits):
    free = dict.fromkeys(["subs", "data", "payload", "imports", "exports", "conn", "leaf"], NO_LIMIT)
    return {"limits": {**free, **limits, "wildcards": True}, "type": "account", "version": 2}
