"""The lookout: sees in one statement what there is to do, and prolongs the lease with it."""

from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import Any, TypeVar

import psycopg

from qworker.nodes import Nodes, PollResult
from qworkerd import log
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.promotion import Promotion
from qworkerd.scheduler.recovery import DeadWorkers
from qworkerd.scheduler.watermarks import WatermarkTracker
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime

Database = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

PIECEMEAL = "what it asks for is seen to by separate statements meanwhile: new jobs are found more slowly"

#: What has been seen before the first look.
NO_RESULT = PollResult(
    ctid=None, heartbeats={}, released_seq=None, first_available=[], last_seq=0, writers=[], due_in=None, cancels=[],
    has_running=False,
    dead_nodes=[], expired=False, at=0.0, took=0.0,
)  # fmt: skip


class Poller:
    """Knows what was seen last; `look` sees more."""

    def __init__(
        self,
        node: NodeContext,
        nodes: Nodes,
        lease: Lease,
        survey: WatermarkTracker,
        due: Promotion,
        burials: DeadWorkers,
    ) -> None:
        self._node = node
        self._nodes = nodes
        self._lease = lease
        self._survey = survey
        self._due = due
        self._burials = burials
        self._log = log.get()
        self.result = NO_RESULT
        #: Whether the last look could be had: only then the lease is entrusted to the next one.
        self.succeeded = False
        #: Why the last look could not be had.
        self.failure = ""

    def poll(self, database: Database, *, renew: bool, sweep: bool) -> PollResult:
        """Look, and prolong the lease.

        When that fails, no duty goes with it: each part that a duty waits for is asked for by itself (`sees` tells).
        Raises when the connection is lost, and when somebody has locked a table: then no part could be had either.
        """
        sent, floors, survey, lease = boottime(), self._node.watermarks, self._survey, self._lease
        front, scrub = survey.begin(sweep=sweep)
        try:
            sight = self._nodes.poll(
                database, self._node.table.header.node, queues=floors.queues, priorities=floors.priorities,
                floors=front, scrub=scrub, with_writers=survey.needs_writers, sweep=sweep,
                due_from=self._due.start(self.result.at),
                since=self._burials.since(survey.settled_at),
                heartbeat=lease.heartbeat(survey.released_seq) if renew else None,
            )  # fmt: skip
        except psycopg.Error as error:
            self.succeeded = False
            survey.miss()
            if renew and not database.closed:
                lease.renew(database, survey.released_seq)
            if database.closed or isinstance(error, psycopg.errors.LockNotAvailable):
                raise
            self._note(error)
            self.result = self._piecemeal(database, renew=renew)
            return self.result
        self.succeeded, self.failure = True, ""
        if renew and sight.renewed:
            lease.confirm(sent, sight.ctid)
        elif renew:
            lease.renew(database, survey.released_seq)
        self.result = sight
        return sight

    def _note(self, error: psycopg.Error) -> None:
        if str(error) != self.failure:  # it comes again with each look
            self.failure = str(error)
            self._log.error("scheduler.look_failed", error=self.failure.strip(), hint=PIECEMEAL)

    def _piecemeal(self, database: Database, *, renew: bool) -> PollResult:
        """See by itself each thing that others wait for: what cannot be had is taken for "there may be something"."""
        node, nodes = self._node.table.header.node, self._nodes

        def see(part: str, ask: Callable[[], T], otherwise: T) -> T:
            try:
                if renew and self._lease.stands:
                    self._lease.renew(database, self._survey.released_seq)
                return ask()
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.warning("maintenance.error", duty=part, error=str(error).strip())
                return otherwise

        return replace(
            NO_RESULT,
            heartbeats=see("beats", lambda: nodes.beats(database, node), {}),
            cancels=see("cancels", lambda: nodes.cancels(database, node), []),
            dead_nodes=see("strays", lambda: nodes.strays(database), []),
            due_in=0.0, has_running=True, expired=True, at=time(),
        )  # fmt: skip
