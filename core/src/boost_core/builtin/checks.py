"""What ``boost doctor`` looks at whatever the brokers are: this machine, the plugins, the tasks."""

from __future__ import annotations

import shutil
import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

from boost_core.contracts.check import Examined, Finding, Level
from boost_core.options import mask_url

FILES_A_JOB = 4
"""Open files that a running job may want: its own, and its share of connections."""
LITTLE_SPACE = 256 * 1024 * 1024


def plugins(subject: Examined) -> Iterator[Finding]:
    """Tell of plugins that are installed and can't be used."""
    bad = [found for found in subject.app.registry.status() if found.status not in ("ok", "disabled")]
    for found in bad:
        yield Finding(
            Level.WARNING,
            f"{found.kind} {found.name!r} of {found.distribution} {found.version} is {found.status}",
            "Upgrade or uninstall it, or switch it off by BOOST_DISABLE.",
        )
    if not bad:
        yield Finding(Level.OK, "all installed plugins can be used")


def open_files(subject: Examined) -> Iterator[Finding]:
    """Compare the limit of open files with what runs at once."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = 64 + FILES_A_JOB * sum(plan.concurrency for plan in subject.plans)
    if 0 <= limit < wanted:
        yield Finding(
            Level.WARNING,
            f"{limit} files may be open at once; the tasks' concurrency may need {wanted}",
            f"Raise the limit (ulimit -n {wanted}), or lower the concurrency.",
        )
    else:
        yield Finding(Level.OK, f"{limit} files may be open at once, enough for the tasks' concurrency")


def secrets(subject: Examined) -> Iterator[Finding]:
    """Tell of passwords that stand in the project's file."""
    for name in ("broker", "store"):
        url = subject.app.settings.get(name)
        origin = subject.app.settings.origin(name)
        if isinstance(url, str) and mask_url(url) != url and "pyproject" in origin:
            yield Finding(
                Level.WARNING,
                f"{name}={mask_url(url)!r} has its password in {origin}",
                f"Keep it out of the repository: BOOST_{name.upper()} in the environment.",
            )


def disk(subject: Examined) -> Iterator[Finding]:
    """Tell where the disk of the working folder is nearly full."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < LITTLE_SPACE:
        yield Finding(Level.WARNING, f"only {free // 1024**2} MiB are free on this disk", "Make room.")
    else:
        yield Finding(Level.OK, f"{free // 1024**2:,} MiB are free on this disk")


def time_zones(_subject: Examined) -> Iterator[Finding]:
    """Tell where jobs can't know any time zone."""
    if not zoneinfo.available_timezones():
        text = "no time zones are known on this machine: zoneinfo.ZoneInfo fails in jobs"
        yield Finding(Level.WARNING, text, "Install them: tzdata, of the system or by pip.")
