"""What tests of tasks and plugins need: a clock that they move themselves."""

from boost_core.testing.clock import FakeClock

__all__ = ["FakeClock"]
