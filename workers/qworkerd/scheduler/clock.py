"""What a node tells of its clock and its time zones, for the doctor."""

from qworker.timezones import timezone_version


class NodeClock:
    """Compares the clock of this host with that of the database whenever the node polls."""

    def __init__(self) -> None:
        self._timezones = timezone_version()
        self._skew: float | None = None
        self._uncertain = 0.0

    def compare(self, sent: float, at: float, answered: float) -> None:
        """Take the times of a statement: sent and answered by the clock of this host, executed by the database's."""
        self._skew = (sent + answered) / 2 - at
        self._uncertain = (answered - sent) / 2

    def state(self) -> dict[str, object]:
        """Return it as part of the node's row: seconds that the clock is ahead, and by which this may be wrong."""
        state: dict[str, object] = {} if self._timezones is None else {"timezones": self._timezones}
        if self._skew is not None:
            state["clock"] = {"ahead": round(self._skew, 3), "uncertain": round(abs(self._uncertain), 3)}
        return state
