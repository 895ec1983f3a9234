"""``python -m boost_core.cli`` is the ``boost`` command."""

from boost_core.cli.launcher import main

main()
