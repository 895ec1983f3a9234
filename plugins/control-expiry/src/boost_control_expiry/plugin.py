"""What the control ``expiry`` is, readable without loading it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from boost_core.plugin import ControlSpec, GateStage, duration, hookimpl, option


def _positive(value: float | None) -> str | None:
    return None if value is None or value > 0 else "it must be more than 0 seconds"


@attrs.frozen(kw_only=True)
class ExpiryOptions:
    """Task options of ``expiry``."""

    max_age: float | None = option(
        None,
        help="Seconds after its publishing by which a message must start; later ones are dropped.",
        convert=duration,
        check=_positive,
        message=True,
    )


EXPIRY = ControlSpec(
    name="expiry",
    factory="boost_control_expiry.control:Expiry",
    options=ExpiryOptions,
    gate=GateStage.EXPIRE,
    summary="Drops messages that weren't started in time.",
)


@hookimpl
def boost_controls() -> Sequence[ControlSpec]:
    """Return the control of this package."""
    return (EXPIRY,)
