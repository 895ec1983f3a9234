"""How options are declared and built: typed, documented, converted, with errors that name the fix."""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec

from boost_core.errors import BadOption

T = TypeVar("T")

LONGEST_DURATION: Final = 100 * 365.25 * 86_400
"""Seconds in 100 years: what is added to a clock stays a date, and a number that every broker and database takes."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration(value: Any) -> float | None:
    """Return seconds for a number, a ``timedelta`` or text such as ``"1.5s"``, ``"250ms"`` or ``"1h30m"``; None stays.

    Raises ``ValueError`` for anything else, for negative ones, for nan and for those over ``LONGEST_DURATION``.
    """
    if value is None:
        return None
    if isinstance(value, datetime.timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = _float(value)
    elif isinstance(value, str):
        seconds = _parse_duration(value)
    else:
        message = f"{value!r} is no duration; give seconds, a timedelta or text such as '1h30m'"
        raise ValueError(message)
    if not 0 <= seconds < float("inf"):
        message = f"{value!r} is no duration of 0 seconds or more"
        raise ValueError(message)
    if seconds > LONGEST_DURATION:
        message = f"{value!r} is longer than 100 years, the longest duration there is"
        raise ValueError(message)
    return seconds


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")


def _parse_duration(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        message = f"{text!r} is no duration; give seconds or text such as '250ms', '1.5s' or '1h30m'"
        raise ValueError(message)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Secret(str):
    """Text that never shows itself: its repr is masked. Read it by ``reveal()``, only where a client needs it."""

    __slots__ = ()

    def reveal(self) -> str:
        """Return the text itself."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, _spec: str) -> str:
        return "***"


_SECRET_KEYS: Final = re.compile(r"(pass|secret|token|credential|key)", re.IGNORECASE)
_SECRET_NAMES: Final = re.compile(
    r"(passw|passphrase|secret|token|credential|(api|access|private)_?key)", re.IGNORECASE
)
# A password with a slash, question mark or number sign in it ends the address early for urlsplit.
_RAW_PASSWORD: Final = re.compile(r"^([a-z][a-z0-9+.-]*://[^:/?#@\[]*:)[^@/?#]*[/?#].*@", re.IGNORECASE)


def mask_url(url: str) -> str:
    """Return a URL fit for logs and errors: password and secret query values are ``***``.

    Where an unescaped password could be meant, more is hidden than need be.
    """
    try:
        parts = urllib.parse.urlsplit(_RAW_PASSWORD.sub(r"\1***@", url))
    except ValueError:  # such as an address in half a bracket: then nothing but the scheme is known to be harmless
        return f"{url.partition('://')[0]}://***"
    netloc = parts.netloc
    if "@" in netloc:
        user, _, host = netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:***@{host}" if ":" in user else f"{user}@{host}"
    query = "&".join(
        f"{name}=***" if _SECRET_KEYS.search(name) else f"{name}={value}" if sign else name
        for name, sign, value in (pair.partition("=") for pair in parts.query.split("&"))
    )
    rest = urllib.parse.urlunsplit(("", "", parts.path, query, parts.fragment))
    return f"{parts.scheme}://{netloc}{rest}"


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002 - the word that click and argparse use
    convert: Callable[[Any], Any] | None = None,
    check: Callable[[Any], str | None] | None = None,
    message: bool = False,
) -> Any:
    """Declare one option of a plugin's frozen attrs class.

    ``help`` is one line for the generated tables. ``convert`` turns what users write into the field's
    type (raise ``ValueError`` with the reason). ``check`` returns what is wrong with a converted value, or
    None. ``message=True`` lets a single message override a task option by ``task.options(...)``.
    """
    return attrs.field(default=default, metadata={"help": help, "convert": convert, "check": check, "message": message})


def option_names(options: type) -> tuple[str, ...]:
    """Return the names of the options that a class declares."""
    return tuple(field.name for field in attrs.fields(options))


def convert_option(owner: str, field: attrs.Attribute[Any], value: Any) -> Any:
    """Return one value as its option wants it, or raise a ``BadOption`` that names owner, option, value and reason."""
    convert, check = field.metadata.get("convert"), field.metadata.get("check")
    problem: str | None
    try:
        converted = convert(value) if convert else _as_type(value, field.type)
        if converted is None and not _admits_none(field.type):
            problem = "it must not be None"
        else:
            problem = check(converted) if check else None
    except (ValueError, TypeError, msgspec.ValidationError) as error:
        problem = str(error)
        if not _is_secret(field):
            raise _unusable(owner, field, value, problem) from error
    if problem:
        raise _unusable(owner, field, value, problem)
    return converted


def _unusable(owner: str, field: attrs.Attribute[Any], value: Any, problem: str) -> BadOption:
    """Return the error for a value; what is secret in it doesn't show."""
    shown = repr(shown_value(field.name, value))
    if _is_secret(field):
        plain = value.reveal() if isinstance(value, Secret) else str(value)
        shown, problem = repr("***"), problem.replace(plain, "***") if plain else problem
    return BadOption(f"{owner}: option {field.name}={shown} can't be used: {problem}")


def shown_value(name: str, value: Any) -> Any:
    """Return an option's value fit to be shown: secrets are ``***``, by their type, their option's name or in URLs."""
    if isinstance(value, Mapping):
        return {key: shown_value(str(key), item) for key, item in value.items()}
    if isinstance(value, str):
        return mask_url(value) if "://" in value else "***" if _SECRET_NAMES.search(name) else value
    return value


def _is_secret(field: attrs.Attribute[Any]) -> bool:
    return field.type is Secret or Secret in getattr(field.type, "__args__", ())


def _admits_none(wanted: Any) -> bool:
    return wanted in (None, Any, object, type(None)) or type(None) in getattr(wanted, "__args__", ())


def _as_type(value: Any, wanted: Any) -> Any:
    """Return ``value`` as the annotated type; text from the environment is parsed, nothing else is coerced."""
    if wanted is None or wanted is Any:
        return value
    if wanted is Secret or Secret in getattr(wanted, "__args__", ()):
        if value is None and wanted is not Secret:
            return None
        text = value.reveal() if isinstance(value, Secret) else msgspec.convert(value, str)
        return Secret(text)
    return msgspec.convert(value, wanted, strict=not isinstance(value, str))


def build_options(owner: str, options: type[T], given: Mapping[str, Any]) -> T:
    """Return the frozen options of ``owner`` (such as ``"broker 'redis'"``) from what was given.

    Raises ``BadOption`` for unknown names (with a did-you-mean), unusable values and missing ones.
    """
    fields: Mapping[str, attrs.Attribute[Any]] = attrs.fields_dict(attrs.resolve_types(cast("type[Any]", options)))
    for name in given:
        if name not in fields:
            raise BadOption.unknown(owner, name, tuple(fields))
    values = {name: convert_option(owner, fields[name], value) for name, value in given.items()}
    missing = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in values]
    if missing:
        raise BadOption(f"{owner} needs the option {missing[0]!r}: {fields[missing[0]].metadata.get('help', '')}")
    return options(**values)
