"""What the launcher raises; the text names the server, what is wrong and the remedy."""

from __future__ import annotations


class LauncherError(Exception):
    """Something can't be done with a server."""


class Unavailable(LauncherError):
    """A server can't be had on this machine."""


class StartFailed(LauncherError):
    """A server ended, or said nothing, instead of becoming ready."""
