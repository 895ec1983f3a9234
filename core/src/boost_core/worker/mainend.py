"""Keeps the main thread from ending, where Python starts no thread any more once it has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

_TOOL: Final = "boost"
_TOOL_IDS: Final = (3, 4)  # those that Python reserves for nobody


def wait_at_end(wait: Callable[[], object]) -> None:
    """Have ``wait()`` called when the main code returns, on Python 3.12.0 to 3.12.2 (gh-113964); else do nothing.

    These refuse to start a thread from that moment on, while all others let what is left behind go on as before. Main
    code that ends by an exception isn't waited for. Main thread only.
    """
    if not (3, 12) <= sys.version_info < (3, 12, 3) or sys.flags.interactive or hasattr(sys, "ps1"):
        return
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
