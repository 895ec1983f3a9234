"""Imports plugin modules and what their specs point to; every failure becomes a ``PluginBroken`` that says why."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any

import attrs
import importlib_metadata

from boost_core.contracts.specs import Spec
from boost_core.errors import PluginBroken
from boost_core.registry.index import Entry

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(\[[^\]]*\])?\s*([^;]*)")


def load_object(path: str) -> Any:
    """Import ``"package.module:attribute"`` and return the attribute."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_module(entry: Entry) -> ModuleType:
    """Import an entry's module. Raises ``PluginBroken``."""
    try:
        return importlib.import_module(entry.module)
    except Exception as error:
        raise broken(entry, f"{type(error).__name__}: {error}", missing_requirement(entry, error)) from error


def load_factory(entry: Entry | None, spec: Spec) -> Any:
    """Import a spec's ``factory``. Raises ``PluginBroken``, or the import's error for a spec given directly."""
    try:
        return load_object(spec.factory)
    except Exception as error:
        if entry is None:
            raise
        raise broken(entry, f"{type(error).__name__}: {error}", missing_requirement(entry, error)) from error


def broken(entry: Entry, problem: str, hint: str | None = None) -> PluginBroken:
    """Return the error for a plugin that can't be used."""
    return PluginBroken(entry.kind, entry.name, entry.distribution, entry.version, problem, hint)


def missing_requirement(entry: Entry, error: BaseException) -> str | None:
    """Return a line that names the declared requirements that aren't installed, the missing module's first."""
    missing = []
    for requirement in entry.requires:
        match = _REQUIREMENT.match(requirement)
        if match is None or "extra ==" in requirement:
            continue
        name, bounds = match.group(1), match.group(3).strip(" ()")
        if not _is_installed(name):
            missing.append((name, f"{name}{bounds}"))
    if not missing:
        return None
    wanted = _normal(getattr(error, "name", None) or "")
    missing.sort(key=lambda pair: _normal(pair[0]) != wanted.partition("-")[0] and _normal(pair[0]) != wanted)
    return f"{entry.distribution} {entry.version} requires {missing[0][1]}, which is not installed."


def _is_installed(name: str) -> bool:
    try:
        importlib_metadata.version(name)
    except importlib_metadata.PackageNotFoundError:
        return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_spec(entry: Entry, spec: Any) -> str | None:
    """Return what is wrong with a spec that a plugin handed over, None where all is well."""
    if not isinstance(spec, Spec):
        return f"its hook boost_{entry.kind}s returned {spec!r}, which is no {entry.kind} spec"
    if getattr(spec, "kind", None) != entry.kind:
        return f"its hook boost_{entry.kind}s returned a {getattr(spec, 'kind', '?')} spec"
    options = spec.options
    if not attrs.has(options):
        return f"the options of {spec.name!r} must be a frozen attrs class, not {options!r}"
    if options.__setattr__ is object.__setattr__:
        return f"the options class {options.__name__} of {spec.name!r} must be frozen: @attrs.frozen"
    untyped = [field.name for field in attrs.fields(options) if field.type is None]
    if untyped:
        return f"the option {untyped[0]!r} of {spec.name!r} has no type"
    return None
