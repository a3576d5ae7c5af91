"""The lookout: sees in one statement what there is to do, and prolongs the lease with it."""

from typing import Any

import psycopg

from qworker.nodes import Nodes, Sight
from qworkerd.header import boottime
from qworkerd.node import Node
from qworkerd.scheduler.burials import Burials
from qworkerd.scheduler.due import Due
from qworkerd.scheduler.lease import Lease
from qworkerd.scheduler.survey import Survey

#: What has been seen before the first look.
NOTHING = Sight(
    place=None, beats={}, returned=None, fronts=[], drawn=0, writers=[], due_in=None, cancels=[], holds=False,
    strays=[], expired=False, at=0.0, took=0.0,
)  # fmt: skip


class Lookout:
    """Knows what was seen last; `look` sees more."""

    def __init__(self, node: Node, nodes: Nodes, lease: Lease, survey: Survey, due: Due, burials: Burials) -> None:
        self._node = node
        self._nodes = nodes
        self._lease = lease
        self._survey = survey
        self._due = due
        self._burials = burials
        self.sight = NOTHING
        #: Whether the last look could be had: only then the lease is entrusted to the next one.
        self.sees = False

    def look(self, database: psycopg.Connection[tuple[Any, ...]], *, renew: bool, sweep: bool) -> Sight:
        """Look, and prolong the lease; when that fails, alone."""
        sent, floors, survey, lease = boottime(), self._node.floors, self._survey, self._lease
        front, scrub = survey.begin(sweep=sweep)
        try:
            sight = self._nodes.look(
                database, self._node.table.header.node, queues=floors.queues, priorities=floors.priorities,
                floors=front, scrub=scrub, doubts=survey.doubts, sweep=sweep, due_from=self._due.start(self.sight.at),
                since=self._burials.since(survey.settled_at),
                beat=lease.beat(survey.returned) if renew else None,
            )  # fmt: skip
        except psycopg.Error:
            self.sees = False
            survey.miss()
            if renew and not database.closed:
                lease.renew(database, survey.returned)
            raise
        self.sees = True
        if renew and sight.renewed:
            lease.take(sent, sight.place)
        elif renew:
            lease.renew(database, survey.returned)
        self.sight = sight
        return sight
