"""Imports plugin modules and what their specs point to; every failure becomes a ``PluginBroken`` that says why."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin

import attrs
import importlib_metadata

from boost_core.contracts.specs import Spec
from boost_core.errors import PluginBroken
from boost_core.registry.index import Entry, normal

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(\[[^\]]*\])?\s*([^;]*)(;.*)?")


def load_object(path: str) -> Any:
    """Import ``"package.module:attribute"`` and return the attribute."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_module(entry: Entry) -> ModuleType:
    """Import an entry's module. Raises ``PluginBroken``."""
    try:
        return importlib.import_module(entry.module)
    except (Exception, SystemExit) as error:
        raise broken(entry, f"{type(error).__name__}: {error}", missing_requirement(entry, error)) from error


def load_factory(entry: Entry | None, spec: Spec) -> Any:
    """Import a spec's ``factory``. Raises ``PluginBroken``, or the import's error for a spec given directly."""
    try:
        return load_object(spec.factory)
    except (Exception, SystemExit) as error:
        if entry is None:
            raise
        raise broken(entry, f"{type(error).__name__}: {error}", missing_requirement(entry, error)) from error


def read_specs(entry: Entry, module: ModuleType) -> Sequence[Spec]:
    """Return the specs that an entry's module hands over for its kind. Raises ``PluginBroken``."""
    name = f"boost_{entry.kind}s"
    hook = getattr(module, name, None)
    if hook is None:
        return ()
    try:
        specs = list(hook())
    except (Exception, SystemExit) as error:
        raise broken(entry, f"its hook {name} raised {type(error).__name__}: {error}") from error
    for spec in specs:
        problem = _problem(entry, spec)
        if problem:
            raise broken(entry, problem)
    return specs


def broken(entry: Entry, problem: str, hint: str | None = None) -> PluginBroken:
    """Return the error for a plugin that can't be used."""
    return PluginBroken(entry.kind, entry.name, entry.distribution, entry.version, problem, hint)


def missing_requirement(entry: Entry, error: BaseException) -> str | None:
    """Return a line that names the declared requirements that aren't installed, the missing module's first."""
    wanted = normal((getattr(error, "name", None) or "").partition(".")[0])
    missing = []
    for requirement in entry.requires:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        name, bounds, marker = match.group(1), match.group(3).strip(" ()"), match.group(4)
        # Whether a marker holds isn't decided here: such a requirement counts if it is what the import missed.
        if (marker is None or normal(name) == wanted) and not _is_installed(name):
            missing.append((name, f"{name}{bounds}"))
    if not missing:
        return None
    missing.sort(key=lambda pair: normal(pair[0]) != wanted)
    return f"{entry.distribution} {entry.version} requires {missing[0][1]}, which is not installed."


def _is_installed(name: str) -> bool:
    try:
        importlib_metadata.version(name)
    except importlib_metadata.PackageNotFoundError:
        return False
    return True


def _problem(entry: Entry, spec: Any) -> str | None:
    if not isinstance(spec, Spec):
        return f"its hook boost_{entry.kind}s returned {spec!r}, which is no {entry.kind} spec"
    if getattr(spec, "kind", None) != entry.kind:
        return f"its hook boost_{entry.kind}s returned a {getattr(spec, 'kind', '?')} spec"
    misfit = _misfit(spec)
    return _options_problem(spec) or (f"in the spec of {spec.name!r} {misfit}" if misfit else None)


def _misfit(described: Any) -> str | None:
    """Say which field of a frozen description isn't what its annotation says; one whose fields fit can be hashed."""
    for field in attrs.fields(attrs.resolve_types(type(described))):
        value = getattr(described, field.name)
        if not _fits(value, field.type):
            wanted = field.type.__name__ if isinstance(field.type, type) else field.type
            return f"{field.name} must be {wanted}, not {value!r}"
    return None


def _fits(value: Any, wanted: Any) -> bool:
    its, origin = get_args(wanted), get_origin(wanted)
    if isinstance(wanted, UnionType):
        return any(_fits(value, one) for one in its)
    if origin in (tuple, frozenset):  # of any number of one type, in all specs
        return isinstance(value, origin) and all(_fits(item, its[0]) for item in value)
    if wanted is Any or not isinstance(wanted, type):
        return True
    if not isinstance(value, (int, float) if wanted is float else wanted):
        return False
    return not attrs.has(wanted) or _misfit(value) is None


def _options_problem(spec: Spec) -> str | None:
    options = spec.options
    if not isinstance(options, type) or not attrs.has(options):
        return f"the options of {spec.name!r} must be a frozen attrs class, not {options!r}"
    if options.__hash__ is None or options.__setattr__ is object.__setattr__:
        return f"the options class {options.__name__} of {spec.name!r} must be frozen: @attrs.frozen"
    try:
        attrs.resolve_types(options)
    except (Exception, SystemExit) as error:
        return f"the types of the options class {options.__name__} of {spec.name!r} can't be read: {error}"
    untyped = [field.name for field in attrs.fields(options) if field.type is None]
    if untyped:
        return f"the option {untyped[0]!r} of {spec.name!r} has no type"
    return None
