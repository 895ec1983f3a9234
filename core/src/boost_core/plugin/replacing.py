"""The contract of ``replace`` for brokers that store a batch as a whole: what can't be stored fails alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from boost_core.errors import SettleError
from boost_core.types import Delivery, Frame

Pairs = Sequence[tuple[Delivery, Frame]]


def replace_fitting(
    broker: str, pairs: Pairs, misfits: Mapping[int, str], replace: Callable[[Pairs], Sequence[Delivery]]
) -> Sequence[Delivery]:
    """Return what ``replace`` returns for the pairs that fit: deliveries that weren't ours.

    ``misfits`` are the numbers of the other pairs, and why they can't be stored. Raises ``SettleError`` that names
    them, beside those that ``replace`` names in its own.
    """
    fitting = [pair for number, pair in enumerate(pairs) if number not in misfits]
    unfit = [pairs[number][0] for number in misfits]
    try:
        fenced = replace(fitting) if fitting else []
    except SettleError as error:
        raise SettleError(broker, error.problem, failed=[*error.failed, *unfit]) from error
    if unfit:
        raise SettleError(broker, next(iter(misfits.values())), failed=unfit)
    return fenced
