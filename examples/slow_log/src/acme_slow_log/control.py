"""The control ``slow-log``."""

import logging

from boost_core.plugin import PROCEED, Around, Control, Outcome, Run

log = logging.getLogger("acme.slow")


class SlowLog(Control):
    """Logs runs that took long. One generator serves threads and asyncio alike."""

    def around(self, call: Run) -> Around:
        started = call.clock.monotonic()
        outcome: Outcome = yield PROCEED
        seconds, slow = call.clock.monotonic() - started, call.setting("slow")
        if slow is not None and seconds >= slow:
            log.warning("job %s of %s took %.2f s", call.message.id, call.message.task, seconds)
        return outcome
