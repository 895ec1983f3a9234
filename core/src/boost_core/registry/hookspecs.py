"""The moments at which plugins are asked. All run at assembly or at a worker's milestones, never per message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from boost_core.contracts.check import Check
    from boost_core.contracts.specs import BrokerSpec, CodecSpec, ControlSpec, PoolSpec, StoreSpec

hookspec = pluggy.HookspecMarker("boost")
hookimpl = pluggy.HookimplMarker("boost")
"""Marks a function of a plugin module as the implementation of the hook of its name."""


class Hooks:
    """All hooks of boost, in the order of a process's life."""

    @hookspec
    def boost_brokers(self) -> Sequence[BrokerSpec]:
        """Return the brokers of this plugin. Once, when it is loaded."""
        return ()

    @hookspec
    def boost_pools(self) -> Sequence[PoolSpec]:
        """Return the pools of this plugin. Once, when it is loaded."""
        return ()

    @hookspec
    def boost_codecs(self) -> Sequence[CodecSpec]:
        """Return the codecs of this plugin. Once, when it is loaded."""
        return ()

    @hookspec
    def boost_stores(self) -> Sequence[StoreSpec]:
        """Return the stores of this plugin. Once, when it is loaded."""
        return ()

    @hookspec
    def boost_controls(self) -> Sequence[ControlSpec]:
        """Return the controls of this plugin. Once, when it is loaded."""
        return ()

    @hookspec
    def boost_configure(self, settings: Any) -> None:
        """See the app's settings, once they are read. Once an app."""

    @hookspec
    def boost_task_declared(self, task: Any) -> None:
        """See a task when its options resolve: at its first push, and once in each worker; never per message."""

    @hookspec
    def boost_plan(self, task: Any, plan: Any) -> None:
        """Add or remove controls of this task, as ``boost_task_declared`` is called: ``plan.controls`` lists names."""

    @hookspec
    def boost_worker_starting(self, worker: Any) -> None:
        """A worker is about to connect. Once a worker."""

    @hookspec
    def boost_worker_ready(self, worker: Any) -> None:
        """A worker is subscribed and fetches. Once a worker."""

    @hookspec
    def boost_worker_draining(self, worker: Any) -> None:
        """A worker fetches no more and ends what runs. Once a worker."""

    @hookspec
    def boost_worker_stopped(self, worker: Any) -> None:
        """A worker has settled and closed everything. Once a worker."""

    @hookspec
    def boost_commands(self, group: Any) -> None:
        """Add commands to the ``boost`` command's click group. Once, when the command line starts."""

    @hookspec
    def boost_checks(self) -> Sequence[Check]:
        """Return checks for ``boost doctor``. Once, when it runs."""
        return ()
