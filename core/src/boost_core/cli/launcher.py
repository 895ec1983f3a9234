"""Entry of the ``boost`` command: exit codes, error texts, and the group that plugins add to."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

import click

from boost_core import __version__
from boost_core.cli.commands import brokers, call, dead, doctor, explain, plugins, queue, worker
from boost_core.errors import BadName, BoostError, BrokerUnavailable, StoreUnavailable, TargetError
from boost_core.registry.registry import EVERYTHING

# Exit codes of the command; docs/errors.md has the table.
OK: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
TARGET: Final = 3
UNREACHABLE: Final = 4
CONFIGURATION: Final = 5


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BOOST"})
@click.version_option(__version__, prog_name="boost")
@click.option("--no-plugins", is_flag=True, help="Load nothing but core and what is named: no controls, no extensions.")
@click.option("-v", "--verbose", count=True, help="Log what boost does in detail; twice for all libraries as well.")
def boost(*, no_plugins: bool, verbose: int) -> None:
    """Run functions on workers, through any message broker."""
    level = logging.DEBUG if verbose > 1 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    if verbose:
        logging.getLogger("boost").setLevel(logging.DEBUG)
    if no_plugins:  # by the environment, so that it holds for every app of the target
        os.environ["BOOST_DISABLE"] = ",".join(filter(None, (os.environ.get("BOOST_DISABLE"), EVERYTHING)))


_COMMANDS: Final = (
    *(worker.worker, call.call, queue.queue, dead.dead),
    *(explain.explain, plugins.plugins, brokers.brokers, doctor.doctor),
)
for _command in _COMMANDS:
    boost.add_command(_command)


def exit_code(error: BoostError) -> int:
    """Return the exit code that an error of boost ends the command with."""
    if isinstance(error, TargetError):
        return TARGET
    if isinstance(error, (BrokerUnavailable, StoreUnavailable)):
        return UNREACHABLE
    return USAGE if isinstance(error, BadName) and error.what == "argument" else CONFIGURATION


def main() -> None:
    """Run the command line; every error of boost is one clear text, never a traceback."""
    try:
        _add_plugin_commands()
        code = boost.main(standalone_mode=False)
    except BoostError as error:
        _say(error)
        sys.exit(exit_code(error))
    except click.Abort:
        click.echo("Aborted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else OK)


def _add_plugin_commands() -> None:
    """Let plugins of the group ``boost.plugins`` add commands; a broken one costs a line, not the command line."""
    if "--no-plugins" in sys.argv:
        return
    from boost_core.registry.registry import Registry

    try:
        registry = Registry()
        registry.load_plugins()
        registry.commands(boost)
    except BoostError as error:
        _say(error)
    except (Exception, SystemExit) as error:
        click.echo(
            f"commands of plugins are left out, for one of them fails: {type(error).__name__}: {error}", err=True
        )


def _say(error: BoostError) -> None:
    click.echo(f"{type(error).__name__}: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)
