"""The typed door to all plugins, and the only user of pluggy's hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, Final, cast

import attrs
import pluggy

from boost_core import __version__
from boost_core.contracts.capability import Capability
from boost_core.contracts.check import Check
from boost_core.contracts.specs import API, BrokerSpec, CodecSpec, ControlSpec, PoolSpec, Spec, StoreSpec
from boost_core.errors import (
    BadOption,
    BoostError,
    BrokerNotFound,
    CodecNotFound,
    ControlNotFound,
    PluginConflict,
    PluginIncompatible,
    PluginNotFound,
    PoolNotFound,
    Provider,
    StoreNotFound,
)
from boost_core.registry import hints
from boost_core.registry.hookspecs import Hooks
from boost_core.registry.index import KINDS, Entry, installed, normal
from boost_core.registry.loading import broken, load_factory, load_module, load_object, read_specs

__all__ = ["PluginStatus", "Registry", "load_object", "unknown_option"]

_NOT_FOUND: Final[dict[str, type[PluginNotFound]]] = {
    "broker": BrokerNotFound,
    "pool": PoolNotFound,
    "codec": CodecNotFound,
    "store": StoreNotFound,
    "control": ControlNotFound,
}

EVERYTHING: Final = "*"
_BY_THEMSELVES: Final = ("control", "plugin")


@attrs.frozen(kw_only=True)
class PluginStatus:
    """One row of ``boost plugins``."""

    kind: str
    name: str
    distribution: str
    version: str
    api: int | None
    capabilities: tuple[str, ...]
    summary: str
    status: str


class Registry:
    """Looks plugins up by kind and name; loads only what is asked for. ``disable`` names plugins or distributions.

    ``EVERYTHING`` among them stands for all but core's that take part by being installed: controls and extensions.

    ``entries`` are what a scan found; the process's own scan unless given.
    """

    def __init__(self, disable: Iterable[str] = (), entries: Sequence[Entry] | None = None) -> None:
        self._disabled = frozenset(map(normal, disable))
        self._given = entries
        self._specs: dict[Entry, Spec] = {}
        self._origins: dict[Spec, Entry] = {}
        self._manager = pluggy.PluginManager("boost")
        self._manager.add_hookspecs(Hooks)

    @property
    def _entries(self) -> Sequence[Entry]:
        return installed() if self._given is None else self._given

    # --- look-up -----------------------------------------------------------------------------------

    def broker(self, name: str) -> BrokerSpec:
        """Return a broker's spec; raises ``BrokerNotFound``, ``PluginBroken``, ``PluginConflict`` and the like."""
        return cast("BrokerSpec", self._get("broker", name))

    def pool(self, name: str) -> PoolSpec:
        """Return the spec of a pool; raises as ``broker`` does."""
        return cast("PoolSpec", self._get("pool", name))

    def codec(self, name: str) -> CodecSpec:
        """Return the spec of a codec; raises as ``broker`` does."""
        return cast("CodecSpec", self._get("codec", name))

    def store(self, name: str) -> StoreSpec:
        """Return the spec of a store; raises as ``broker`` does."""
        return cast("StoreSpec", self._get("store", name))

    def control(self, name: str) -> ControlSpec:
        """Return the spec of a control; raises as ``broker`` does."""
        return cast("ControlSpec", self._get("control", name))

    def controls(self) -> Sequence[ControlSpec]:
        """Return the specs of all installed controls, by name."""
        return [self.control(name) for name in self.installed("control")]

    def find(self, kind: str, chosen: Any) -> tuple[Any, str | None]:
        """Return the spec that ``chosen`` means, and its URL if it is one.

        ``chosen`` is a name, ``name@distribution``, a URL whose scheme picks the plugin, or a spec itself, which
        needs no look-up.
        """
        if isinstance(chosen, Spec):
            return chosen, None
        if not isinstance(chosen, str):
            raise BadOption(f"{kind}={chosen!r} is no {kind}.", "Give a name, a URL or a spec.")
        if "://" in chosen:
            return self._by_scheme(kind, chosen.partition("://")[0]), chosen
        return self._get(kind, chosen), None

    def _by_scheme(self, kind: str, scheme: str) -> Spec:
        if self._found(kind, scheme):
            return self._get(kind, scheme)
        for name in self.installed(kind):
            with contextlib.suppress(BoostError):  # a broken plugin doesn't keep the others from being found
                spec = self._get(kind, name)
                if scheme in getattr(spec, "schemes", ()):
                    return spec
        raise self._not_found(kind, scheme)

    def installed(self, kind: str) -> list[str]:
        """Return the names of all plugins of a kind that aren't disabled, sorted."""
        return sorted({entry.name for entry in self._entries if entry.kind == kind and not self._is_disabled(entry)})

    def known(self, beside: Iterable[Spec] = ()) -> dict[str, set[str]]:
        """Return the names of each kind: installed, also if disabled, of this project, and those of ``beside``."""
        pairs = [*((entry.kind, entry.name) for entry in self._entries), *hints.PLUGINS]
        pairs += [(getattr(spec, "kind", ""), spec.name) for spec in beside]
        return {kind: {name for its, name in pairs if its == kind} for kind in KINDS}

    def with_capability(self, capability: Capability) -> list[str]:
        """Return the names of installed brokers that can do something; broken ones are passed over."""
        names = []
        for name in self.installed("broker"):
            with contextlib.suppress(BoostError):
                if capability in self.broker(name).capabilities:
                    names.append(name)
        return names

    def provider(self, spec: Spec) -> Provider:
        """Return the distribution that a spec comes from; for one given directly, the module of its factory."""
        entry = self._origins.get(spec)
        return entry.provider if entry else Provider(spec.factory.partition(".")[0], "-", spec.factory)

    def effective(self, spec: BrokerSpec, options: Any) -> BrokerSpec:
        """Return a broker's spec with the capabilities and limits that it has with these options."""
        decide = getattr(options, "effective", None)
        if decide is None:
            return spec
        capabilities, limits = decide(spec)
        found = attrs.evolve(spec, capabilities=frozenset(capabilities), limits=limits)
        if spec in self._origins:
            self._origins.setdefault(found, self._origins[spec])
        return found

    def load(self, spec: Spec) -> Any:
        """Return what a spec's factory names, imported at first use. Raises ``PluginBroken``."""
        return load_factory(self._origins.get(spec), spec)

    # --- how a name becomes a spec -------------------------------------------------------------------

    def _get(self, kind: str, text: str) -> Spec:
        name, _, distribution = text.partition("@")
        found = self._found(kind, name)
        if found and distribution:
            chosen = [entry for entry in found if normal(entry.distribution) == normal(distribution)]
            if not chosen:
                raise _NOT_FOUND[kind](text, [f"{name}@{entry.distribution}" for entry in found])
            found = chosen
        if not found:
            raise self._not_found(kind, name)
        if len(found) > 1:
            raise PluginConflict(kind, name, [entry.provider for entry in self._known_first(found)])
        return self._spec(found[0])

    def _known_first(self, found: Sequence[Entry]) -> Sequence[Entry]:
        known = hints.PLUGINS.get((found[0].kind, found[0].name))
        return sorted(found, key=lambda entry: (entry.distribution not in (known, "boost-core"), entry.distribution))

    def _found(self, kind: str, name: str) -> list[Entry]:
        return [e for e in self._entries if e.kind == kind and e.name == name and not self._is_disabled(e)]

    def _is_disabled(self, entry: Entry) -> bool:
        if EVERYTHING in self._disabled and entry.kind in _BY_THEMSELVES and entry.distribution != "boost-core":
            return True
        return normal(entry.name) in self._disabled or normal(entry.distribution) in self._disabled

    def _not_found(self, kind: str, name: str) -> BoostError:
        disabled = [e for e in self._entries if e.kind == kind and e.name == name and self._is_disabled(e)]
        if disabled:
            by = name if normal(name) in self._disabled else disabled[0].distribution
            problem = (
                f"the {kind} {name!r} ({disabled[0].distribution} {disabled[0].version}) is installed, but disabled."
            )
            return BadOption(problem, f"Take {by!r} out of BOOST_DISABLE, disable= or [tool.boost] disable.")
        return _NOT_FOUND[kind](name, self.installed(kind), hints.PLUGINS.get((kind, name)))

    def _spec(self, entry: Entry) -> Spec:
        spec = self._specs.get(entry)
        if spec is None:
            spec = self._specs[entry] = self._read(entry)
            self._origins[spec] = entry
        return spec

    def _read(self, entry: Entry) -> Spec:
        module = load_module(entry)
        self._register(entry, module)
        specs = read_specs(entry, module)
        mine = [spec for spec in specs if spec.name == entry.name]
        if len(mine) != 1:
            listed = ", ".join(spec.name for spec in specs) or "none"
            raise broken(
                entry, f"its module {entry.module} hands over the {entry.kind}s {listed}, not one {entry.name!r}"
            )
        if mine[0].api != API:
            raise PluginIncompatible(entry.distribution, entry.version, mine[0].api, __version__, API)
        return mine[0]

    def _register(self, entry: Entry, module: ModuleType) -> None:
        if self._manager.is_registered(module):
            return
        try:
            self._manager.register(module)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(module)
            raise broken(entry, f"PluginValidationError: {error}") from error

    def load_plugins(self) -> None:
        """Load the plugins of the group ``boost.plugins``: extensions with hooks of their own."""
        for entry in self._entries:
            if entry.kind == "plugin" and not self._is_disabled(entry):
                self._register(entry, load_module(entry))

    def status(self) -> list[PluginStatus]:
        """Return everything that was found and whether it can be used. Never raises."""
        ordered = sorted(self._entries, key=lambda entry: (entry.kind, entry.name, entry.distribution))
        return [self._status(entry) for entry in ordered]

    def _status(self, entry: Entry) -> PluginStatus:
        spec, api, status = None, None, "ok"
        rivals = [e for e in self._found(entry.kind, entry.name) if e != entry]
        if self._is_disabled(entry):
            status = "disabled"
        elif rivals and entry.kind != "plugin":
            status = f"conflict with {', '.join(rival.distribution for rival in rivals)}"
        else:
            try:
                if entry.kind == "plugin":
                    self._register(entry, load_module(entry))
                else:
                    spec = self._spec(entry)
                    api = spec.api
            except PluginIncompatible as error:
                api, status = error.api, f"incompatible: {_second_line(error)}"
            except BoostError as error:
                status = f"broken: {_second_line(error)}"
            except (Exception, SystemExit) as error:  # what it hands over can't even be looked at
                status = f"broken: {type(error).__name__}: {error}"
        return PluginStatus(
            kind=entry.kind,
            name=entry.name,
            distribution=entry.distribution,
            version=entry.version,
            api=api,
            capabilities=tuple(sorted(c.value for c in getattr(spec, "capabilities", ()))),
            summary=spec.summary if spec else "",
            status=status,
        )

    # --- hooks: once a process, once a task; never per message --------------------------------------------

    def configure(self, settings: Any) -> None:
        """Call ``boost_configure``."""
        self._call("boost_configure", settings=settings)

    def task_declared(self, task: Any) -> None:
        """Call ``boost_task_declared``."""
        self._call("boost_task_declared", task=task)

    def plan(self, task: Any, plan: Any) -> None:
        """Call ``boost_plan``."""
        self._call("boost_plan", task=task, plan=plan)

    def worker_starting(self, worker: Any) -> None:
        """Call ``boost_worker_starting``."""
        self._call("boost_worker_starting", worker=worker)

    def worker_ready(self, worker: Any) -> None:
        """Call ``boost_worker_ready``."""
        self._call("boost_worker_ready", worker=worker)

    def worker_draining(self, worker: Any) -> None:
        """Call ``boost_worker_draining``."""
        self._call("boost_worker_draining", worker=worker)

    def worker_stopped(self, worker: Any) -> None:
        """Call ``boost_worker_stopped``."""
        self._call("boost_worker_stopped", worker=worker)

    def commands(self, group: Any) -> None:
        """Call ``boost_commands``."""
        self._call("boost_commands", group=group)

    def checks(self) -> list[Check]:
        """Call ``boost_checks``; return all checks of the plugins that are loaded."""
        return [check for checks in self._call("boost_checks") for check in checks]

    def _call(self, name: str, **facts: Any) -> Any:
        """Call a hook of all plugins. Raises ``PluginBroken`` for one that fails; errors of boost go on as they are."""
        hook = getattr(self._manager.hook, name)
        try:
            return hook(**facts)
        except BoostError:
            raise
        except (Exception, SystemExit) as error:
            entry = self._failed(hook, error)
            if entry is None:
                raise
            raise broken(entry, f"its hook {name} raised {type(error).__name__}: {error}") from error

    def _failed(self, hook: Any, error: BaseException) -> Entry | None:
        """Return the plugin whose implementation of a hook is among an error's frames."""
        import traceback

        modules = {getattr(impl.function, "__code__", None): impl.plugin.__name__ for impl in hook.get_hookimpls()}
        running = {modules.get(frame.f_code) for frame, _ in traceback.walk_tb(error.__traceback__)}
        return next((entry for entry in self._entries if entry.module in running), None)

    @contextlib.contextmanager
    def forbid_hooks(self) -> Iterator[None]:
        """Make every hook call inside raise: proves that none happens per message."""

        def forbid(name: str, _implementations: object, _arguments: object) -> None:
            message = f"the hook {name} was called where no hook may be"
            raise AssertionError(message)

        undo = self._manager.add_hookcall_monitoring(forbid, lambda *_: None)
        try:
            yield
        finally:
            undo()


def _second_line(error: BoostError) -> str:
    lines = str(error).splitlines()
    return lines[min(1, len(lines) - 1)].strip()


def unknown_option(name: str, known: Sequence[str]) -> BadOption:
    """Return the error for a task option that no installed control owns."""
    if name in hints.OPTIONS:
        control, distribution = hints.OPTIONS[name]
        if any((entry.kind, entry.name) == ("control", control) for entry in installed()):
            return BadOption(
                f"{name!r} is an option of the control {control!r}, which is disabled.",
                f"Take {control!r} or {distribution!r} out of BOOST_DISABLE, disable= or [tool.boost] disable.",
            )
        return BadOption(
            f"{name!r} is an option of the control {control!r}, which is not installed.",
            f"Install it:        pip install {distribution}",
        )
    return BadOption.unknown("a task", name, known)
