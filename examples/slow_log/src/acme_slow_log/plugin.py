"""What core reads of this package without loading its code."""

import attrs
from boost_core.plugin import ControlSpec, WrapStage, duration, hookimpl, option


@attrs.frozen(kw_only=True)
class SlowLogOptions:
    """Task options of ``slow-log``."""

    slow: float | None = option(None, convert=duration, message=True, help="Seconds from which on a run is logged.")


@hookimpl
def boost_controls() -> list[ControlSpec]:
    """Return the control of this package."""
    factory = "acme_slow_log.control:SlowLog"
    return [ControlSpec(name="slow-log", factory=factory, options=SlowLogOptions, wrap=WrapStage.USER)]
