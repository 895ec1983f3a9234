"""Where values come from: defaults < [tool.boost] in pyproject.toml < environment < what code gives."""

from __future__ import annotations

import re
import tomllib
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from boost_core.errors import BadName, BadOption
from boost_core.errors.base import guess
from boost_core.options import build_options, convert_option, duration, mask_url, option, option_names, shown_value

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_-]{0,32}")
_PLUGIN_TABLES: Final = {
    "brokers": "broker",
    "stores": "store",
    "pools": "pool",
    "codecs": "codec",
    "controls": "control",
}


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _namespace(value: Any) -> str:
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise BadName("namespace", str(value), "can't be used; give up to 32 characters of A-Z, a-z, 0-9, _ and -.")
    return value


@attrs.frozen(kw_only=True)
class AppOptions:
    """The settings of an app itself."""

    broker: Any = option("sqlite", help="Broker of tasks that name none: a name, name@distribution, a URL or a spec.")
    store: Any = option(None, help="Store of results: a name or a URL; what goes with the broker unless set.")
    pool: str = option("threads", help="Pool of tasks that name none; asyncio for coroutine functions unless set.")
    codec: str = option("json", help="Codec that messages are written with.")
    namespace: str = option("", help="Prefix of queues and keys, such as 'staging'.", convert=_namespace)
    disable: tuple[str, ...] = option((), help="Plugins or distributions that are not to be loaded.", convert=_names)
    app: str | None = option(None, help="Target of commands that are given none.")
    drain_timeout: float = option(
        25.0, help="Seconds that running jobs may go on while a worker stops.", convert=duration
    )


@attrs.frozen
class Layer:
    """Values from one place. ``origin`` gives the place's words for a name."""

    values: Mapping[str, Any]
    origin: Callable[[str], str]


@attrs.frozen
class Table:
    """A plugin's table in the project's file. ``where`` gives its place in words."""

    kind: str
    name: str
    where: str
    values: Mapping[str, Any]


class Settings:
    """An app's settings, each with its origin, and the options of its plugins. Read once, by ``load``."""

    def __init__(
        self, layers: list[Layer], plugins: dict[tuple[str, str], list[Layer]], tables: Sequence[Table] = ()
    ) -> None:
        self._plugins, self._tables = plugins, tables
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self.task_defaults: dict[str, Any] = {}
        fields = attrs.fields_dict(attrs.resolve_types(AppOptions))
        for name, field in fields.items():
            self._values[name], self._origins[name] = field.default, "default"
        for layer in layers:
            for name, value in layer.values.items():
                if name in fields:
                    self._values[name] = convert_option("the app", fields[name], value)
                else:
                    self.task_defaults[name] = value
                self._origins[name] = layer.origin(name)

    @classmethod
    def load(cls, start: Path | None, environ: Mapping[str, str], given: Mapping[str, Any]) -> Settings:
        """Read the nearest pyproject.toml at or above ``start``, the environment, and what code gives.

        Raises ``BadOption`` for unusable values and files that don't parse, ``BadName`` for the namespace.
        """
        file, table = _project_table(start)
        tables = [its for group in _PLUGIN_TABLES if group in table for its in _tables(group, table.pop(group), file)]
        code = Layer(dict(given), lambda name: f"App({name}=...)")
        plugins: dict[tuple[str, str], list[Layer]] = {}
        _add_tables(plugins, tables)
        _add_environment(plugins, environ)
        return cls([_project(file, table), _environment(environ), code], plugins, tables)

    @classmethod
    def read(cls, name: str, start: Path | None, environ: Mapping[str, str]) -> Any:
        """Return one setting of project and environment, whatever the others are. Raises as ``load`` does."""
        layers = [_project(*_project_table(start)), _environment(environ)]
        chosen = [Layer({name: layer.values[name]}, layer.origin) for layer in layers if name in layer.values]
        return cls(chosen, {}).get(name)

    def check_tables(self, known: Mapping[str, Collection[str]]) -> None:
        """Raise ``BadOption`` for a table of the project's file that no plugin reads; ``known`` are a kind's names."""
        for table in self._tables:
            names = known[table.kind]
            if _environment_name(table.name) not in map(_environment_name, names):
                close = guess(table.name, tuple(names))
                fix = "\n  Install the package that brings it, or take the table out."
                tail = f" Did you mean {close!r}?" if close else fix
                raise BadOption(f"{table.where}: there is no {table.kind} {table.name!r}.{tail}")

    def override(self, given: Mapping[str, Any]) -> None:
        """Lay the command line's values over all others."""
        fields = attrs.fields_dict(AppOptions)
        for name, value in given.items():
            self._values[name] = convert_option("the app", fields[name], value)
            self._origins[name] = "command line"

    def get(self, name: str) -> Any:
        """Return a setting."""
        return self._values[name]

    @property
    def prefix(self) -> str:
        """What stands before the name of each queue at the broker: the namespace and a dot, if there is one."""
        return f"{self.get('namespace')}." if self.get("namespace") else ""

    def origin(self, name: str) -> str:
        """Return where a setting comes from; "default" where nobody set it."""
        return self._origins.get(name, "default")

    def plugin_options(
        self, spec: Any, given: Mapping[str, Any] | None = None, beneath: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the frozen options of a plugin: project < environment < ``given``. Raises ``BadOption``.

        ``beneath`` takes the place of defaults, where the plugin has such options.
        """
        known = {name.lower(): name for name in option_names(spec.options)}
        values = {name: value for name, value in (beneath or {}).items() if name in known}
        for layer in self._plugins.get((spec.kind, _environment_name(spec.name)), ()):
            values.update({known.get(name.lower(), name): value for name, value in layer.values.items()})
        values.update(given or {})
        return build_options(f"{spec.kind} {spec.name!r}", spec.options, values)

    def describe(self) -> list[tuple[str, str, str]]:
        """Return each setting as (name, value fit to be shown, origin)."""
        return [
            (name, repr(shown_value(name, value)), self.origin(name))
            for name, value in {**self._values, **self.task_defaults}.items()
        ]


def url_option(spec: Any, url: str | None) -> dict[str, str]:
    """Return the option that the URL of a chosen plugin gives it: ``url``, else the path of its file.

    Raises ``BadOption`` where the plugin has neither.
    """
    if url is None:
        return {}
    names = option_names(spec.options)
    if "url" in names:
        return {"url": url}
    if "path" in names:
        return {"path": urllib.parse.unquote(url.partition("://")[2])}
    raise BadOption(
        f"{spec.kind} {spec.name!r} takes no URL, such as {mask_url(url)!r}.", f"Give its name: {spec.name}"
    )


def _environment_name(name: str) -> str:
    return name.upper().replace("-", "_")


# --- the project's file ---------------------------------------------------------------------------------


def _project_table(start: Path | None) -> tuple[Path | None, dict[str, Any]]:
    for folder in (start, *start.parents) if start else ():
        file = folder / "pyproject.toml"
        if file.is_file():
            tool = _table(_parsed(file).get("tool", {}), f"{file} [tool]")
            return file, dict(_table(tool.get("boost", {}), f"{file} [tool.boost]"))
    return None, {}


def _project(file: Path | None, table: Mapping[str, Any]) -> Layer:
    return Layer(table, lambda _name: f"{file} [tool.boost]")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadOption(f"{where} must be a table of options, not {shown_value('', value)!r}.")
    return value


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOption(f"{file} can't be read: {error}", "Mend the file, or work in another folder.") from error


def _tables(group: str, its: Any, file: Path | None) -> list[Table]:
    found = []
    for name, values in _table(its, f"{file} [tool.boost.{group}]").items():
        where = f"{file} [tool.boost.{group}.{name}]"
        found.append(Table(_PLUGIN_TABLES[group], name, where, _table(values, where)))
    return found


def _add_tables(plugins: dict[tuple[str, str], list[Layer]], tables: Sequence[Table]) -> None:
    for table in tables:
        layer = Layer(table.values, lambda _name, where=table.where: where)  # type: ignore[misc]
        plugins.setdefault((table.kind, _environment_name(table.name)), []).append(layer)


# --- the environment ------------------------------------------------------------------------------------


def _environment(environ: Mapping[str, str]) -> Layer:
    """Return the app's own variables; other names that begin with BOOST_ belong to others."""
    values = {
        name: environ[f"BOOST_{name.upper()}"]
        for name in option_names(AppOptions)
        if f"BOOST_{name.upper()}" in environ
    }
    return Layer(values, lambda name: f"environment BOOST_{name.upper()}")


def _add_environment(plugins: dict[tuple[str, str], list[Layer]], environ: Mapping[str, str]) -> None:
    for variable, value in environ.items():
        head, mark, name = variable.partition("__")
        for kind in _PLUGIN_TABLES.values():
            prefix = f"BOOST_{kind.upper()}_"
            if mark and head.startswith(prefix):
                layer = Layer({name.lower(): value}, lambda _name, variable=variable: f"environment {variable}")  # type: ignore[misc]
                plugins.setdefault((kind, head.removeprefix(prefix)), []).append(layer)
