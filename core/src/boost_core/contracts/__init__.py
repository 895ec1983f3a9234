"""The contracts between core and its plugins; plugin authors import them from ``boost_core.plugin``."""
