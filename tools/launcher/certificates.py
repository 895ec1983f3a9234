"""A certificate authority of its own for each server, and the server's certificate for loopback."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher.errors import Unavailable
from launcher.program import run

_DAYS: Final = "3650"
_CONFIG: Final = """\
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificates:
    """Files of a folder: the authority that clients trust, the server's certificate and its key."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key, in PKCS 8."""
        return self.folder / "server.key"

    def make(self) -> None:
        """Make what isn't there."""
        if self.certificate.exists():
            return
        if shutil.which("openssl") is None:
            raise Unavailable("TLS needs the openssl command to make certificates; apt-get install openssl")
        self.folder.mkdir(parents=True, exist_ok=True)
        key, request = self._new_key("ca"), self.folder / "server.csr"
        options = ["-x509", "-days", _DAYS, "-extensions", "authority", "-key", str(key), "-out", str(self.ca)]
        run("openssl", "req", "-new", "-config", self._config("authority of a test"), *options)
        config = self._config("localhost")
        run("openssl", "req", "-new", "-config", config, "-key", str(self._new_key("server")), "-out", str(request))
        signing = ["-CA", str(self.ca), "-CAkey", str(key), "-set_serial", "1", "-days", _DAYS]
        described = ["-extfile", config, "-extensions", "server", "-in", str(request), "-out", str(self.certificate)]
        run("openssl", "x509", "-req", *signing, *described)

    def _new_key(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))
        return path

    def _config(self, name: str) -> str:
        path = self.folder / f"{name.replace(' ', '-')}.cnf"
        path.write_text(_CONFIG.format(name=name), encoding="ascii")
        return str(path)
