"""What boost offers to its users and to plugin authors: exactly these names, each of them explained."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import boost_core
import pytest
from boost_core import plugin, testing

USERS = """
    App Drop Job RateLimited Reject Requeue Retry Secret Task boost current default_app
""".split()

AUTHORS = """
    API PROCEED RELEASE START
    Ack Admission Around AsyncBroker AsyncSubscription BadArgument BadOption Binder BoostError Broker BrokerSpec BrokerUnavailable CancelAnswer Cancelled
    Capability Check Clock Closed Codec CodecSpec ConnectionLost Control ControlContext ControlSpec Dead DeadLetter Deadlines
    DecodeError Delivery Depth Done Drop Effect End Ended Examined Failed Failure Finding Flavour Frame Gate GateStage Guarantee Hold Killed Level Limits
    Lost Message Next NoOptions Outcome Policy PolicyStage Pool PoolSpec Proceed PublishError QueueGone QueueKind QueueSpec
    RateLimited Reject Release Report Requeue Retry Run RunnerCall Secret SettleError Sleep Split Start Store StoreSpec
    StoreUnavailable SyncBroker SyncSubscription SystemClock TaskConflict TimedOut UnsupportedCapability Verdict WorkerLost
    World WrapStage duration hookimpl mask_url new_id option
""".split()

TESTERS = ["FakeClock"]

DOORS = {boost_core: USERS, plugin: AUTHORS, testing: TESTERS}
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@every_door
def test_the_list_of_exports_is_the_one_written_here(door: ModuleType) -> None:
    """A name that is added or taken away changes this list too, and with it what others rely on."""
    assert sorted(door.__all__) == sorted(DOORS[door])


@every_door
def test_each_export_can_be_had(door: ModuleType) -> None:
    """Each name of ``__all__`` is there, by attribute and by ``from ... import *``."""
    names: dict[str, Any] = {}
    exec(f"from {door.__name__} import *", names)

    assert {name: names[name] for name in door.__all__} == {name: getattr(door, name) for name in door.__all__}


def test_a_name_that_doesnt_exist_is_an_ordinary_error() -> None:
    """The names of boost_core are looked up at first use; a misspelt one is refused as by any module."""
    with pytest.raises(AttributeError) as caught:
        boost_core.Boost

    assert str(caught.value) == "module 'boost_core' has no attribute 'Boost'"


def explanation(name: str, module: ModuleType) -> str | None:
    """Return the docstring of a module's name: its own, or the text that follows its assignment where it is made."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    statements = [*tree.body, None]
    for statement, after in zip(statements, statements[1:], strict=False):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)) and statement.name == name:
            return ast.get_docstring(statement)
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            return explanation(name, importlib.import_module(str(statement.module)))
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if name in [getattr(target, "id", None) for target in targets]:
            value = getattr(after, "value", None)
            return value.value if isinstance(after, ast.Expr) and isinstance(value, ast.Constant) else None
    return None


@pytest.mark.parametrize(
    ("door", "name"),
    [(door, name) for door, names in DOORS.items() for name in names],
    ids=lambda it: getattr(it, "__name__", it),
)
def test_each_export_says_what_it_is(door: ModuleType, name: str) -> None:
    """Classes and functions have docstrings of their own, constants and types a sentence where they are made."""
    homes = getattr(door, "_HOMES", {})
    home = importlib.import_module(homes.get(name, door.__name__))

    text = explanation(name, home)

    assert text
    assert len(text.split()) >= 4


def modules() -> list[ModuleType]:
    """Return all modules of core."""
    found = pkgutil.walk_packages(boost_core.__path__, "boost_core.")
    return [importlib.import_module(one.name) for one in found if not one.name.endswith("__main__")]


def methods(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of the public classes that a module defines, by their full names."""
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and not kind.__name__.startswith("_"):
            for name, value in vars(kind).items():
                if not name.startswith("_") and isinstance(value, (FunctionType, property, classmethod, staticmethod)):
                    yield f"{kind.__qualname__}.{name}", getattr(kind, name)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_each_public_method_is_explained_where_its_contract_stands(module: ModuleType) -> None:
    """A method has a docstring, or implements one that has: of a contract, where it says who calls it and when."""
    silent = [name for name, method in methods(module) if not inspect.getdoc(method)]

    assert silent == []
