"""Packages of Debian and its relatives: installed by root, without the services that they bring."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from launcher.errors import Unavailable
from launcher.program import ProgramFailed, run

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL: Final = ("apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")


def install_packages(*packages: str, services: Sequence[str] = ()) -> None:
    """Install packages; their ``services`` run neither now nor after the next boot."""
    remedy = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise Unavailable(f"{' '.join(packages)} not installed, and no apt-get here; install it by other means")
    if os.geteuid() != 0:
        raise Unavailable(f"{' '.join(packages)} not installed; as root: {remedy}")
    with _no_service_starts():
        try:
            _apt(packages)
        except ProgramFailed as failed:
            raise Unavailable(f"{failed}; mend that, then: {remedy}") from None
    for service in services:
        _disable(service)


def _apt(packages: Sequence[str]) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*_INSTALL, *packages, environ=environ)
    except ProgramFailed:
        # Bare machines have no package lists, others have lists that name versions long gone.
        run("apt-get", "update", "-o", "DPkg::Lock::Timeout=300", environ=environ)
        run(*_INSTALL, *packages, environ=environ)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid packages to start services, the way that Debian's policy gives for it."""
    if _POLICY.exists():
        yield  # whoever put it there decides
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _disable(service: str) -> None:
    if shutil.which("systemctl"):
        run("systemctl", "disable", "--quiet", service)
