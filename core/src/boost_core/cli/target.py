"""Finds the app that a TARGET names: a module, ``module:app``, or a path to any .py file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from boost_core import boost, default_app
from boost_core.app.app import App, declaring
from boost_core.errors import BoostError, TargetError
from boost_core.plugin.place import name_file

DEFAULT: Final = "boost"
"""The attribute that names the app of the module-level ``boost``: the decorator itself, as scripts import it."""


def load_app(targets: tuple[str, ...], broker: str | None = None) -> App:
    """Import all targets and return the one app that they declare tasks on; ``broker`` goes over what it says.

    Raises ``TargetError`` where one can't be found or imported (with the user's own line), or where
    they hold several apps and don't say which.
    """
    if not targets:
        targets = _configured()
    apps: dict[App, str] = {}
    with declaring():
        for target in targets:
            for app, name in _apps_of(target):
                apps.setdefault(app, name)
    if len(apps) > 1:
        raise TargetError(" ".join(targets), f"there are several apps; name one: {', '.join(sorted(apps.values()))}")
    (app,) = apps
    if broker:
        app.override(broker=broker)
    return app


def _configured() -> tuple[str, ...]:
    from boost_core.settings import Settings

    target = Settings.load(Path.cwd(), os.environ, {}).get("app")
    if not target:
        problem = "give a module, module:app or the path of a .py file (or set BOOST_APP)"
        raise TargetError("", problem)
    return (target,)


def _apps_of(target: str) -> list[tuple[App, str]]:
    """Return the apps of a target that have tasks, each with the target that names it alone."""
    place, attribute = _split(target)
    module = _load(target, place)
    if attribute:
        value: Any = module
        for part in attribute.split("."):
            value = getattr(value, part, None)
        if attribute == DEFAULT and value is boost:
            value = default_app()
        if not isinstance(value, App):
            raise TargetError(target, f"{attribute!r} in it is {type(value).__name__}, not an App")
        return [(value, target)]
    found = [(value, f"{place}:{name}") for name, value in vars(module).items() if isinstance(value, App)]
    found.append((default_app(), f"{place}:{DEFAULT}"))
    apps = [(app, name) for app, name in found if app.tasks]
    if not apps:
        raise TargetError(target, "declares no task; decorate a function with @boost()")
    return apps


def _split(target: str) -> tuple[str, str]:
    """Separate ``module:app``; a path may hold colons itself."""
    if Path(target).exists():
        return target, ""
    place, _, attribute = target.rpartition(":")
    return (place, attribute) if place else (target, "")


def _load(target: str, place: str) -> ModuleType:
    try:
        if place.endswith(".py") or os.sep in place or not place.strip("."):
            return _load_file(target, Path(place))
        return _load_module(target, place)
    except (TargetError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise TargetError(target, _own_lines(error)) from error


def _load_module(target: str, name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    top = name.partition(".")[0]
    try:
        found = importlib.util.find_spec(top) is not None
    except ValueError:
        found = False
    if not found:
        hint = f"; did you mean the file {name}.py?" if Path(f"{name}.py").exists() else ""
        raise TargetError(target, f"there is no module {top!r} here or installed{hint}")
    return importlib.import_module(name)


def _load_file(target: str, path: Path) -> ModuleType:
    if path.is_dir():
        raise TargetError(target, f"{str(path)!r} is a folder; name a .py file in it")
    if not path.is_file():
        raise TargetError(target, f"there is no file {str(path)!r}")
    path = path.resolve()
    name_file(path)
    root, name = _module_name(path)
    if str(root) not in sys.path:
        # First, as Python does for scripts; but a file named like a standard module must not hide that one.
        sys.path.insert(len(sys.path) if path.stem in sys.stdlib_module_names else 0, str(root))
    if _is_loaded(name, path):
        return sys.modules[name]
    importable = "." not in path.stem and name.replace(".", "").isidentifier()
    if not importable or path.stem in sys.stdlib_module_names:
        return _execute(path, _alias(path))
    top = name.partition(".")[0]
    home = path if top == name else root / top / "__init__.py"
    if top not in sys.modules or _is_loaded(top, home):
        importlib.import_module(name)
        if _is_loaded(name, path):
            return sys.modules[name]
    return _load_hidden(name, home)


def _is_loaded(name: str, path: Path) -> bool:
    module = sys.modules.get(name)
    return module is not None and os.path.realpath(getattr(module, "__file__", None) or "") == str(path)


def _load_hidden(name: str, home: Path) -> ModuleType:
    """Load a file whose package, or whose own name, is that of a module that is there already: under another name."""
    alias = _alias(home)
    if alias not in sys.modules:
        _execute(home, alias)
    return importlib.import_module(".".join([alias, *name.split(".")[1:]]))


def _alias(path: Path) -> str:
    return f"boost_target_{zlib.crc32(str(path).encode()):x}"


def _module_name(path: Path) -> tuple[Path, str]:
    """Return the folder to import from and the name: dotted inside a package, else the file's stem."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(part for part in parts if part != "__init__")


def _execute(path: Path, name: str) -> ModuleType:
    """Run a file whose name can't be imported, such as one with hyphens or blanks, as the module ``name``."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(str(path), "it can't be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _own_lines(error: BaseException) -> str:
    """Return an import's error with the user's lines only.

    The frames of the import machinery say nothing, and those of boost nothing where it says itself what is wrong.
    """
    ours = Path(__file__).parents[1] if isinstance(error, BoostError) else Path(__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not Path(frame.filename).is_relative_to(ours)
    ]
    told = "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, BoostError):
        told = told.removeprefix(f"{type(error).__module__}.")
    failed = "it doesn't parse" if isinstance(error, SyntaxError) and not frames else "it doesn't import"
    return f"{failed}:\n{''.join(traceback.format_list(frames))}{told}"
