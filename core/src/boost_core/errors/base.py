"""What all errors share, and how errors of users are written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class BoostError(Exception):
    """Base of all errors of boost. ``code`` is stable and anchors the page ``docs/errors.md``."""

    code: ClassVar[str] = "boost"

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields are the arguments; notes, which copies of slotted classes lose, are in __dict__.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[BoostError], fields: tuple[Any, ...], notes: dict[str, Any]) -> BoostError:
    error = kind(*fields)
    error.__dict__.update(notes)
    return error


def text_of(value: object, limit: int = 1024) -> str:
    """Return what a user raised or gave as a reason as text of at most ``limit`` characters that any codec carries.

    Never raises, whatever the object's own code does: one job's odd error must not hold up those settled with it.
    """
    try:
        text = str(value)
    except BaseException as failed:
        text = f"<{type(value).__qualname__} without a text: its __str__ raised {type(failed).__qualname__}>"
    return _carried(text)[:limit]


def _carried(text: str) -> str:
    """Return text with its lone surrogates, as names of files may have them, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def traceback_text(error: BaseException, limit: int = 16_384) -> str:
    """Return an exception's traceback as text, its middle left out where it is over ``limit`` characters."""
    import traceback

    try:
        lines = traceback.format_exception(error)
    except BaseException:  # the error's own code, such as a __bool__ that raises
        lines = [*traceback.format_tb(error.__traceback__), f"{type(error).__qualname__}: {text_of(error)}\n"]
    text = _carried("".join(lines))
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  [... {len(text) - limit} characters left out ...]\n{text[-half:]}"


def listed(names: Sequence[str]) -> str:
    """Return names as a text shows them."""
    return ", ".join(sorted(names)) or "none"


def guess(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was meant, if one is close."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return close[0] if close else None
