"""The generated parts of README files, made from specs and options classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from sync.packages import Package

_PART: Final = re.compile(r"(<!-- (generated|example): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLAIN: Final = {None: "none", True: "`True`", False: "`False`"}

NONE: Final = "none"


def filled(text: str, parts: dict[str, str], root: Path) -> str:
    """Return a README whose generated parts are ``parts`` and whose examples are the files they name.

    Raises ``KeyError`` for a part that nobody makes.
    """

    def fill(found: re.Match[str]) -> str:
        head, sort, name, end = found.groups()
        body = f"```python\n{(root / name).read_text(encoding='utf-8')}```\n" if sort == "example" else parts[name]
        return f"{head}{body}{end}"

    return _PART.sub(fill, text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# --- options -----------------------------------------------------------------------------------------


def options_text(package: Package) -> str:
    """Return the tables of a package's options; core's own and those of its controls, for core."""
    specs = list(package.specs())
    controls = [spec for spec in specs if spec.kind == "control"]
    others = [spec for spec in specs if spec.kind != "control" and attrs.fields(spec.options)]
    parts = _core_options() if package.is_core else []
    titled = package.is_core or len(specs) > 1
    parts += [(f"Task options of the control `{spec.name}`:", spec.options, True) for spec in controls]
    parts += [(f"Options of the {spec.kind} `{spec.name}`:", spec.options, False) for spec in others]
    texts = [f"{title}\n\n{rows}" if titled else rows for title, rows in _option_tables(parts)]
    return "\n".join(texts) or "It has none.\n"


def _core_options() -> list[tuple[str, type, bool]]:
    from boost_core.plan.task_options import CoreOptions
    from boost_core.settings import AppOptions

    app = "Of an app, in `App(...)`, `[tool.boost]` of pyproject.toml, or the environment as `BOOST_<OPTION>`:"
    return [(app, AppOptions, False), ("Of every task:", CoreOptions, True)]


def _option_tables(parts: Iterable[tuple[str, type, bool]]) -> Iterable[tuple[str, str]]:
    for title, options, of_task in parts:
        rows = [_option_row(field, of_task=of_task) for field in attrs.fields(options)]
        if rows:
            yield title, table(("option", "default", "what it does"), rows)


def _option_row(field: Any, *, of_task: bool) -> tuple[str, str, str]:
    text = field.metadata.get("help", "")
    per_message = of_task and field.metadata.get("message")
    return f"`{field.name}`", _default(field), f"{text} Per message." if per_message else text


def _default(field: Any) -> str:
    value = field.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    if isinstance(value, (type(None), bool)):
        return _PLAIN[value]
    if isinstance(value, tuple) and value and all(isinstance(item, type) for item in value):
        return ", ".join(f"`{item.__name__}`" for item in value)
    if not isinstance(value, (int, float)) and not value:
        return NONE
    is_duration = getattr(field.metadata.get("convert"), "__name__", "") == "duration"
    return f"{value:g} s" if is_duration else f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


# --- brokers -----------------------------------------------------------------------------------------


def capabilities_text(specs: Iterable[Any]) -> str:
    """Return what the brokers among some specs can do and bear: a column a broker, named where there are several."""
    brokers = [spec for spec in specs if spec.kind == "broker"]
    if not brokers:
        return ""
    known = type(next(iter(brokers[0].capabilities)))
    names = [f"`{spec.name}`" for spec in brokers] if len(brokers) > 1 else ["has it"]
    able = [
        (f"`{item.value}`", *("yes" if item in spec.capabilities else "no" for spec in brokers), item.doc)
        for item in known
    ]
    limits = [_limits(spec) for spec in brokers]
    known_limits = dict.fromkeys(name for its in limits for name in its)
    bears = [(name, *(its.get(name, NONE) for its in limits)) for name in known_limits]
    values = ["value"] if len(brokers) == 1 else names
    return f"{table(('capability', *names, 'what it means'), able)}\n{table(('limit', *values), bears)}"


def _limits(spec: Any) -> dict[str, str]:
    limits = {"Largest body": size(spec.limits.max_body), "Messages in one batch": f"{spec.limits.max_batch:,}"}
    limits["Priority levels"] = str(spec.limits.priorities)
    if "delay" in can(spec):
        limits["Longest delay"] = _seconds(spec.limits.max_delay, "unbounded")
        limits["Steps of a delay"] = _seconds(spec.limits.delay_resolution, "")
    limits["Lease"] = _seconds(spec.limits.lease, NONE)
    limits["A killed worker's messages are taken over within"] = _seconds(spec.limits.takeover, NONE)
    return limits


def guarantees_text(specs: Iterable[Any]) -> str:
    """Return what survives what on each broker, and what each can do."""
    brokers = [spec for spec in specs if spec.kind == "broker"]
    kept = table(
        ("broker", "delivery", "a worker is killed -9", "all are killed -9, the server too", "the power is cut"),
        (row for spec in brokers for row in _kept(spec)),
    )
    able = table(
        ("broker", "order", "delay", "priority levels", "largest body", "batches"), (_able(spec) for spec in brokers)
    )
    return f"{kept}\n{able}"


def _kept(spec: Any) -> Iterable[tuple[str, ...]]:
    delivery = "at least once" if "ack" in can(spec) else "at most once"
    for row in spec.guarantees:
        name = f"`{spec.name}`, {row.when}" if row.when else f"`{spec.name}`"
        yield name, delivery, row.worker_killed, row.all_killed, row.power_cut


def _able(spec: Any) -> tuple[str, ...]:
    has = can(spec)
    order = [name for word, name in (("ordered", "as published"), ("key_ordered", "by key")) if word in has]
    delay = _seconds(spec.limits.max_delay, "any") if "delay" in has else "no"
    priority = str(spec.limits.priorities) if "priority" in has else "no"
    batches = ", ".join(word for word in ("publish", "fetch", "ack") if f"batch_{word}" in has)
    return f"`{spec.name}`", ", ".join(order) or "no", delay, priority, size(spec.limits.max_body), batches or "no"


def can(spec: Any) -> set[str]:
    """Return the names of a broker's capabilities."""
    return {item.value for item in spec.capabilities}


def size(count: int) -> str:
    """Return a number of bytes for readers."""
    if count % 1024**2 == 0:
        return f"{count // 1024**2:,} MiB"
    return f"{count // 1024:,} KiB" if count % 1024 == 0 else f"{count:,} bytes"


def _seconds(value: float | None, none: str) -> str:
    if value is None:
        return none
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


# --- packages ----------------------------------------------------------------------------------------


def packages_text(packages: Iterable[Package], root: Path) -> str:
    """Return the table of this repository's distributions."""
    rows = [(_link(package, root), package.project["description"], _provided(package)) for package in packages]
    return table(("package", "what it is", "what it brings"), rows)


def _link(package: Package, root: Path) -> str:
    return f"[{package.name}]({package.folder.relative_to(root).as_posix()}/README.md)"


def _provided(package: Package) -> str:
    names: dict[str, list[str]] = {}
    for kind, name, _ in package.provides():
        names.setdefault(kind, []).append(f"`{name}`")
    return "; ".join(f"{kind}{'s' if len(its) > 1 else ''} {', '.join(its)}" for kind, its in names.items())
