"""Errors of plugins: not there, broken, in conflict, or unable to do what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs

from boost_core.errors.base import BoostError, guess, listed


@attrs.define(eq=False)
class PluginNotFound(BoostError):
    """No installed distribution provides the named plugin."""

    code: ClassVar[str] = "plugin-not-found"
    kind: ClassVar[str] = "plugin"

    name: str
    installed: Sequence[str] = ()
    distribution: str | None = None

    def __str__(self) -> str:
        head = f"no {self.kind} named {self.name!r} is installed."
        close = None if self.distribution else guess(self.name, self.installed)
        if close:
            return f"{head} Did you mean {close!r}?"
        label = f"Installed {self.kind}s:"
        lines = [head]
        if self.distribution:
            lines.append(f"  {'Install it:':<{len(label)}} pip install {self.distribution}")
        lines.append(f"  {label} {listed(self.installed)}")
        return "\n".join(lines)


class BrokerNotFound(PluginNotFound):
    """The broker's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "broker-not-found"
    kind: ClassVar[str] = "broker"


class PoolNotFound(PluginNotFound):
    """The pool's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "pool-not-found"
    kind: ClassVar[str] = "pool"


class CodecNotFound(PluginNotFound):
    """The codec's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "codec-not-found"
    kind: ClassVar[str] = "codec"


class StoreNotFound(PluginNotFound):
    """The store's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "store-not-found"
    kind: ClassVar[str] = "store"


class ControlNotFound(PluginNotFound):
    """The control's package is not installed, or the name is misspelt."""

    code: ClassVar[str] = "control-not-found"
    kind: ClassVar[str] = "control"


@attrs.define(eq=False)
class PluginBroken(BoostError):
    """An installed plugin cannot be used: its import or a hook fails, or it hands over what is none."""

    code: ClassVar[str] = "plugin-broken"

    kind: str
    name: str
    distribution: str
    version: str
    problem: str
    hint: str | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.kind} {self.name!r} ({self.distribution} {self.version}) can't be used.",
            f"  {self.problem}",
        ]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


@attrs.frozen
class Provider:
    """Where a plugin comes from: distribution, version, and the folder of its package."""

    distribution: str
    version: str
    location: str


@attrs.define(eq=False)
class PluginConflict(BoostError):
    """Two installed distributions provide the same name of one kind."""

    code: ClassVar[str] = "plugin-conflict"

    kind: str
    name: str
    providers: Sequence[Provider]

    def __str__(self) -> str:
        count = {2: "two", 3: "three"}.get(len(self.providers), str(len(self.providers)))
        width = max(len(f"{p.distribution} {p.version}") for p in self.providers)
        lines = [f"{count} plugins provide the {self.kind} {self.name!r}:"]
        lines += [f"  {f'{p.distribution} {p.version}':<{width}}   ({p.location})" for p in self.providers]
        last = self.providers[-1].distribution
        lines.append(
            f"  Uninstall one, or disable one: BOOST_DISABLE={last}"
            if self.kind == "control"  # they take part by being installed: nothing chooses one
            else f'  Uninstall one, or say which: {self.kind}="{self.name}@{last}"'
        )
        return "\n".join(lines)


@attrs.define(eq=False)
class PluginIncompatible(BoostError):
    """A plugin is written for another plugin API than this core speaks."""

    code: ClassVar[str] = "plugin-incompatible"

    distribution: str
    version: str
    api: int
    core_version: str
    core_api: int

    def __str__(self) -> str:
        short = ".".join(self.core_version.split(".")[:2])
        release = ".".join(self.version.split(".")[:2])
        fix = (
            f"Upgrade boost-core, or install {self.distribution}<{release}."
            if self.api > self.core_api
            else f"Upgrade {self.distribution}, or install boost-core<{short}."
        )
        return (
            f"{self.distribution} {self.version} is written for plugin API {self.api}; "
            f"boost-core {short} speaks API {self.core_api}.\n  {fix}"
        )


@attrs.define(eq=False)
class UnsupportedCapability(BoostError):
    """Something was asked of a broker that it cannot do. ``asker`` and ``asks`` say who wanted what."""

    code: ClassVar[str] = "unsupported-capability"

    asker: str
    asks: str
    broker: str
    capability: str
    providers: Sequence[str] = ()
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.asker} asks for {self.asks}, but broker {self.broker!r} has no capability {self.capability!r}."
        if self.providers:
            text += f"\n  Installed brokers that have it: {listed(self.providers)}."
        if self.hint:
            text += f"\n  {self.hint}"
        return text
