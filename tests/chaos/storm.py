"""Lets faults strike a cluster for a time, and makes good."""

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic, sleep

import psycopg

from tests.chaos.faults import FAULTS, Fault, Heal
from tests.chaos.field import Field
from tests.waiting import until


class Storm:
    """At the end all is healed, every node is alive, and what waits for a time is due."""

    def __init__(
        self,
        field: Field,
        faults: Sequence[Fault] = FAULTS,
        *,
        every: float = 1.0,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.field = field
        self._faults = faults
        #: Between two faults, on average (seconds).
        self._every = every
        #: What struck when, for messages.
        self.record: list[str] = []
        self._tell = tell
        self._began = monotonic()
        #: When what is still broken heals.
        self._broken: dict[str, tuple[float, Heal]] = {}

    def rage(self, seconds: float) -> None:
        """Strike again and again for so long, then make good."""
        strikes_at = now = monotonic()
        end = now + seconds
        while now < end:
            self._mend(now)
            if now >= strikes_at:
                self._strike()
                strikes_at = now + self.field.random.expovariate(1 / self._every)
            self._revive()
            heals_at = min((moment for moment, _ in self._broken.values()), default=end)
            sleep(max(0.0, min(strikes_at, heals_at, end) - monotonic()))
            now = monotonic()
        self._mend(inf)
        until(self._resume, 30.0, what="resuming the queues")
        self._revive()
        # Jobs that were put off while the clock was ahead are due by now.
        self.field.server.move(24 * 3600)

    def _strike(self) -> None:
        (fault,) = self.field.random.choices(self._faults, [fault.often for fault in self._faults])
        if fault.kind in self._broken:
            return
        lasts = self.field.random.uniform(0.0, fault.lasts)
        self._note(fault.name + (f" for {lasts:.2f} s" if lasts else ""))
        heal = fault.strike(self.field)
        if heal is not None:
            self._broken[fault.kind] = monotonic() + lasts, heal

    def _mend(self, until: float) -> None:
        for kind, (moment, heal) in list(self._broken.items()):
            if moment <= until:
                del self._broken[kind]
                heal()

    def _resume(self) -> bool:
        """Resume every queue, as a fault's own attempt may have failed; tell whether the server has done it."""
        try:
            self.field.cluster.query("UPDATE qworker.queue SET paused_at = NULL, paused_by = NULL, pause_reason = NULL")
        except psycopg.Error:
            self.field.cluster.hang_up()
            return False
        return True

    def _revive(self) -> None:
        """Replace nodes that have given up, as systemd would."""
        for side, node in enumerate(self.field.nodes):
            if node.process.poll() is not None:
                self._note(f"a node ended with {node.process.poll()}")
                self.field.replace(side)

    def _note(self, what: str) -> None:
        self.record.append(f"{monotonic() - self._began:6.2f} {what}")
        if self._tell is not None:
            self._tell(self.record[-1])
