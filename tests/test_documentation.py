"""What is written for readers: every hook, capability, command and option is explained, and the examples work."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from boost_core.cli.launcher import boost
from boost_core.contracts.capability import Capability
from boost_core.contracts.specs import GateStage, PolicyStage, WrapStage
from boost_core.plan.task_options import CoreOptions
from boost_core.registry.hookspecs import Hooks
from boost_core.registry.registry import Registry
from boost_core.settings import AppOptions
from projects import Project

ROOT = Path(__file__).parents[1]
AUTHORS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("core/*.md"), *ROOT.glob("plugins/*/*.md")]
HOOKS = {name: hook for name, hook in vars(Hooks).items() if inspect.isfunction(hook)}


def rows(text: str) -> dict[str, str]:
    """Return the tables of a page, by the first word in backticks of each row."""
    return {found[1]: found[2] for found in re.finditer(r"^\| `([^`(]+)[^|]*\| (.*) \|$", text, re.MULTILINE)}


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_explained_to_plugin_authors(name: str) -> None:
    """The page names the hook, its arguments, what it is for and how often it is called."""
    arguments = [argument for argument in inspect.signature(HOOKS[name]).parameters if argument != "self"]

    assert f"| `{name}({', '.join(arguments)})` | " in AUTHORS
    assert rows(AUTHORS)[name] == inspect.getdoc(HOOKS[name])
    assert re.search(r"Once|once|never per message|as ``\w+`` is called", rows(AUTHORS)[name])


def test_no_hook_is_explained_that_doesnt_exist() -> None:
    """What was taken away isn't promised any more."""
    assert set(re.findall(r"\bboost_[a-z_]+\b", AUTHORS)) - {"boost_core"} == set(HOOKS)


@pytest.mark.parametrize("capability", Capability, ids=lambda item: item.value)
def test_each_capability_is_explained_once_in_one_sentence(capability: Capability) -> None:
    """To authors, and to users beside every broker with whether it has it."""
    assert rows(AUTHORS)[capability.value] == capability.doc
    assert re.fullmatch(r"[A-Z][^.]*\.", capability.doc)
    specs = [Registry().broker(name) for name in Registry().installed("broker")]
    for page in {readme(spec) for spec in specs}:
        its = [spec for spec in specs if readme(spec) == page]  # in one package: a column each, by name
        has = " | ".join("yes" if capability in spec.capabilities else "no" for spec in its)
        assert rows(page)[capability.value] == f"{has} | {capability.doc}"


def test_the_stages_are_listed_in_their_order() -> None:
    """Authors read off where their control stands."""
    text = " ".join(AUTHORS.split())
    ends = {WrapStage: "USER", GateStage: "RATE", PolicyStage: "RESULT"}
    for stages, last in ends.items():
        names = [stage.name for stage in stages]
        listed = ", ".join(f"`{name}`" for name in names[: names.index(last) + 1])
        assert listed in text
        assert all(f"`{name}`" in text for name in names)


def commands(command: click.Command = boost, name: str = "boost") -> Iterator[tuple[str, click.Command]]:
    """Yield each command of core by what users type."""
    yield name, command
    for below, its in getattr(command, "commands", {}).items():
        yield from commands(its, f"{name} {below}")


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda it: it if isinstance(it, str) else "")
def test_each_command_and_each_of_its_options_is_explained(name: str, command: click.Command) -> None:
    """Under its heading stand the command's help and a row an option; every argument is in the usage line."""
    found = re.search(rf"^## {name}\n\n(.*?)(?=^## |\Z)", COMMANDS, re.MULTILINE | re.DOTALL)
    assert found is not None
    section = found[1]

    assert (command.help or "nothing").splitlines()[0] in section
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert f"| {', '.join(f'`{one}`' for one in parameter.opts)} | {parameter.help} |" in section
        else:
            assert (parameter.metavar or str(parameter.name).upper()) in section.splitlines()[0]


def readme(spec: Any) -> str:
    """Return the README of the package that a spec comes from."""
    package = spec.factory.partition(".")[0].replace("_", "-").removeprefix("boost-")
    path = ROOT / ("core" if package == "core" else f"plugins/{package}") / "README.md"
    return path.read_text(encoding="utf-8")


def options() -> Iterator[tuple[str, str, attrs.Attribute[Any]]]:
    """Yield each option of core and of each plugin of this repository: its owner, the README it belongs in, itself."""
    core = (ROOT / "core" / "README.md").read_text(encoding="utf-8")
    for owner, kind in (("an app", AppOptions), ("a task", CoreOptions)):
        yield from ((owner, core, field) for field in attrs.fields(kind))
    registry = Registry()
    for kind in ("broker", "pool", "codec", "store", "control"):
        for name in registry.installed(kind):
            spec = getattr(registry, kind)(name)
            yield from ((f"{kind} {name}", readme(spec), field) for field in attrs.fields(spec.options))


@pytest.mark.parametrize(
    ("text", "field"), [(text, field) for _, text, field in options()], ids=[f"{o}-{f.name}" for o, _, f in options()]
)
def test_each_option_is_explained_with_its_default(text: str, field: attrs.Attribute[Any]) -> None:
    """A row of the package's README has the option's own sentence, which ends like one."""
    sentence = field.metadata["help"]

    assert re.search(rf"^\| `{field.name}` \| [^|]+ \| {re.escape(sentence)}( Per message\.)? \|$", text, re.MULTILINE)
    assert sentence.endswith(".")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository names one that exists, and a heading that it has."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_the_commands_that_the_readme_names_exist() -> None:
    """``make demo`` and ``make test``, and whatever else the pages tell a reader to make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    told = {name for page in PAGES for name in re.findall(r"(?:^    |`)make ([a-z]+)", page.read_text(), re.MULTILINE)}

    assert {"demo", "test", "check", "bench"} <= told
    assert told <= targets


def installed_example(project: Project, name: str) -> None:
    """Let a project's processes find an example's package as if it were installed."""
    folder = ROOT / "examples" / name
    facts = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = facts["name"].replace("-", "_")
    project.write(f"{package}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: 1\n")
    points = "".join(
        f"[{group}]\n" + "".join(f"{point} = {module}\n" for point, module in its.items())
        for group, its in facts["entry-points"].items()
    )
    project.write(f"{package}-1.dist-info/entry_points.txt", points)
    project.environ["PYTHONPATH"] = f"{project.folder}:{folder / 'src'}"


def test_the_plugin_of_the_page_works(project: Project) -> None:
    """The two files that authors read about are a control: found, explained, its option taken, in both worlds."""
    installed_example(project, "slow_log")
    path = project.write(
        "jobs.py",
        "import asyncio, time\nfrom boost_core import boost\n"
        "@boost('plain', slow='10ms')\ndef plain():\n    time.sleep(0.02)\n"
        "@boost('coroutine', slow='10ms')\nasync def coroutine():\n    await asyncio.sleep(0.02)\n"
        "@boost('quick', slow='1h')\ndef quick(): ...\n",
    )

    explained = project.boost("explain", path, "plain")
    for task in ("plain", "coroutine", "quick"):
        project.boost("call", path, task)
    worked = project.boost("worker", path, "--burst")

    assert "USER slow-log (acme-slow-log) > plain" in explained.stdout, explained.stderr
    assert worked.returncode == 0, worked.stderr
    assert sorted(re.findall(r"job \w+ of (\w+) took 0\.\d+ s", worked.stderr)) == ["coroutine", "plain"]


def test_the_page_shows_the_plugin_as_it_is() -> None:
    """Both files stand in it to the letter."""
    for name in ("plugin.py", "control.py"):
        path = f"examples/slow_log/src/acme_slow_log/{name}"
        assert f"<!-- example: {path} -->\n```python\n{(ROOT / path).read_text(encoding='utf-8')}```\n" in AUTHORS
