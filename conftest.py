"""Rules for every test of this repository."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: children would be deaf to it
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOOLS = Path(__file__).resolve().parent / "tools"
REASON = "a test that is skipped proves nothing; mend what it lacks, or take it out"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Make a skip a failure, and of what tests print a text that can be sent from process to process."""
    report = _failed_if_skipped((yield))
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Make a skipped module a failure."""
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]}: {REASON}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say whose servers can't be had here: the tests of what works with them were left out."""
    if not TOOLS.exists():  # a copy, beside packages that stand alone
        return
    sys.path.insert(0, str(TOOLS))
    from launcher import NAMES, available

    for name, reason in ((name, available(name)) for name in NAMES):
        if reason is not None:
            terminalreporter.write_line(f"NOT PROVEN: {name}: {reason}", red=True)
