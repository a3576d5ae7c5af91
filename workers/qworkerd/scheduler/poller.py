"""Polls: one statement reads all work that is waiting, and renews the lease."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import monotonic, time
from typing import TypeVar

import psycopg

from qworker.db.statements import Database
from qworker.nodes import Nodes
from qworker.queues import Queues
from qworker.registry import PollResult, Registry
from qworkerd import log
from qworkerd.process.throttle import Throttle
from qworkerd.scheduler.lease import RENEW_INTERVAL, Lease
from qworkerd.scheduler.periodic import Periodic
from qworkerd.scheduler.promotion import Promotion
from qworkerd.scheduler.reconciliation import Reconciliation
from qworkerd.scheduler.watermarks.tracker import WatermarkTracker
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime

T = TypeVar("T")

SEPARATE_STATEMENTS_HINT = "until it succeeds, its parts are queried by separate statements; jobs are found more slowly"

#: Interval between polls while a due job or tick is locked by another session, and the minimum interval (seconds).
OVERDUE_POLL_INTERVAL, MIN_POLL_INTERVAL = 0.25, 0.005
#: Interval between thorough polls (seconds). One longer than EXPENSIVE_POLL scans the dead entries that an old
#: snapshot keeps. No worker is woken during it, so these polls may take only one part in THOROUGH_FACTOR of the time.
THOROUGH_INTERVAL, EXPENSIVE_POLL, THOROUGH_FACTOR = 5.0, 0.05, 1000

#: The result before the first poll.
NO_RESULT = PollResult(
    ctid=None, heartbeats={}, released_seq=None, first_available=[], last_seq=0, writers=[], due_in=None, cancels=[],
    stacks=[], followed=[],
    has_running=False,
    dead_nodes=[], expired=False, paused=None, node_paused=None, operations=False, at=0.0, duration=0.0,
)  # fmt: skip


class Poller:
    """Determines when to poll, and keeps the result of the last poll.

    Every few seconds a poll is thorough: it also runs the queries for rare cases.
    """

    def __init__(
        self,
        node: NodeContext,
        registry: Registry,
        lease: Lease,
        tracker: WatermarkTracker,
        promotion: Promotion,
        reconciliation: Reconciliation,
    ) -> None:
        self._node = node
        self._registry = registry
        self._lease = lease
        self._tracker = tracker
        self._promotion = promotion
        self._reconciliation = reconciliation
        self._thorough = Throttle(THOROUGH_FACTOR, interval=THOROUGH_INTERVAL, cheap=EXPENSIVE_POLL)
        self._queues = Queues(node.settings.schema)
        self._nodes = Nodes(node.settings.schema)
        self._log = log.get()
        #: When to poll: at least as often as to renew, as one statement can do both.
        self.clock = Periodic(min(RENEW_INTERVAL, node.settings.poll_interval))
        self.result = NO_RESULT
        #: Whether the last poll succeeded. Only then is the next renewal combined with a poll.
        self.succeeded = False
        #: The error of the last poll that failed.
        self.failure = ""

    def poll(self, database: Database, *, renew: bool) -> PollResult:
        """Poll, renew the lease if `renew` is set, and set the watermarks according to the result."""
        began = monotonic()
        thorough = began >= self._thorough.due
        self.clock.restart(began)
        if self._tracker.has_lingering_writer:
            self.clock.hasten(RENEW_INTERVAL / 2)
        result = self._poll(database, renew=renew, thorough=thorough)
        if self.succeeded and self._tracker.advance(result):
            self.clock.hasten()
        if thorough:
            self._thorough.record(monotonic(), monotonic() - began)
        return result

    def schedule_next(self, tick_at: float) -> None:
        """Poll again when the next job or tick is due, if that is sooner; tick_at is the time of the next tick."""
        due_in = inf if self.result.due_in is None else self.result.due_in
        soon = min(due_in, tick_at - self.result.at)
        # A job that is due but was not promoted is locked, or another node is taking it.
        self.clock.hasten(max(soon, MIN_POLL_INTERVAL) if soon > 0 else OVERDUE_POLL_INTERVAL)

    def _poll(self, database: Database, *, renew: bool, thorough: bool) -> PollResult:
        """Execute the statement.

        If it fails, each part that other tasks depend on is queried by a separate statement. Raises psycopg.Error if
        the connection is lost or a table is locked, because these statements would fail as well.
        """
        sent, watermarks, tracker, lease = boottime(), self._node.watermarks, self._tracker, self._lease
        sent_at = time()
        scan_start, scrub = tracker.begin(thorough=thorough)
        try:
            result = self._registry.poll(
                database, self._node.table.header.node, queues=watermarks.queues, priorities=watermarks.priorities,
                watermarks=scan_start, scrub=scrub, with_writers=tracker.needs_writers, thorough=thorough,
                due_from=self._promotion.start(self.result.at),
                since=self._reconciliation.since(tracker.settled_at),
                heartbeat=lease.heartbeat(tracker.released_seq) if renew else None,
            )  # fmt: skip
        except psycopg.Error as error:
            self.succeeded = False
            tracker.poll_failed()
            if renew and not database.closed:
                lease.renew(database, tracker.released_seq)
            if database.closed or isinstance(error, psycopg.errors.LockNotAvailable):
                # The earlier result does not cover the claims up to the time that `since` was called with.
                self.result = replace(self.result, has_running=True)
                raise
            self._log_failure(error)
            self.result = self._poll_separately(database, renew=renew)
            return self.result
        self.succeeded, self.failure = True, ""
        lease.node_clock.compare(sent_at, result.at, time())
        if renew and result.renewed:
            lease.confirm(sent, result.ctid)
        elif renew:
            lease.renew(database, tracker.released_seq)
        self.result = result
        return result

    def _log_failure(self, error: psycopg.Error) -> None:
        if str(error) != self.failure:  # the same error is raised by each poll
            self.failure = str(error)
            self._log.error("scheduler.poll_failed", error=self.failure.strip(), hint=SEPARATE_STATEMENTS_HINT)

    def _poll_separately(self, database: Database, *, renew: bool) -> PollResult:
        """Query each part separately. If a part cannot be queried, its value is one that hides no work."""
        node, registry, queues = self._node.table.header.node, self._registry, self._node.settings.queues

        def query(part: str, run: Callable[[], T], default: T) -> T:
            try:
                if renew and self._lease.held:
                    self._lease.renew(database, self._tracker.released_seq)
                return run()
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.warning("maintenance.error", action=part, error=str(error).strip())
                return default

        return replace(
            NO_RESULT,
            heartbeats=query("heartbeats", lambda: registry.heartbeats(database, node), {}),
            cancels=query("cancels", lambda: registry.cancels(database, node), []),
            dead_nodes=query("dead_nodes", lambda: registry.dead_nodes(database), []),
            paused=query("paused", lambda: self._queues.paused_names(database, queues), None),
            node_paused=query("node_paused", lambda: self._nodes.is_paused(database, node), None),
            due_in=0.0, has_running=True, expired=True, operations=True, at=time(),
        )  # fmt: skip
