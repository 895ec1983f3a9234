"""Keeps the main thread from ending: once it has, Python takes no new work into executors, and starts no threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

_TOOL: Final = "boost"
_TOOL_IDS: Final = (3, 4)  # those that Python reserves for nobody


def wait_at_end(wait: Callable[[], object]) -> None:
    """Have ``wait()`` called once the main code has ended, before Python begins to end anything. Main thread only.

    Python's own end begins by telling executors, so that a thread that isn't a daemon lives on without
    ``ThreadPoolExecutor``, ``asyncio.to_thread`` and ``getaddrinfo``; no public hook comes earlier. Where even
    that is too late for threads (gh-113964), ``wait()`` is called as the main code returns, too.
    """
    end = threading._shutdown  # type: ignore[attr-defined]

    def shutdown() -> None:
        try:
            wait()
        finally:  # a signal's handler may raise in it
            end()

    threading._shutdown = shutdown  # type: ignore[attr-defined]
    if (3, 12) <= sys.version_info < (3, 12, 3) and not (sys.flags.interactive or hasattr(sys, "ps1")):
        _wait_at_return(wait)


def _wait_at_return(wait: Callable[[], object]) -> None:
    """Have ``wait()`` called when the main code returns, which isn't when it raises."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tool = next((tool for tool in _TOOL_IDS if monitoring.get_tool(tool) in (None, _TOOL)), None)
    if tool is None:
        return
    if monitoring.get_tool(tool) is None:
        monitoring.use_tool_id(tool, _TOOL)

    def ended(_code: CodeType, _offset: int, _value: object) -> None:
        wait()

    monitoring.register_callback(tool, monitoring.events.PY_RETURN, ended)
    monitoring.set_local_events(tool, _main_code(), monitoring.events.PY_RETURN)


def _main_code() -> CodeType:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code
