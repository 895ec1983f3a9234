"""The ``boost`` command."""
