"""Settle a dead worker's claim: each job as what became of it, or as what the death of its worker makes of it."""

import json
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from qworker.claims import Claims
from qworker.nodes import HeldJob, Nodes
from qworkerd import log
from qworkerd.config.policy import Policies
from qworkerd.outcomes.outcome import load
from qworkerd.outcomes.reports import Failure, Reporter
from qworkerd.outcomes.writes import Done, ReleaseWrite, Write, group
from qworkerd.process.reconnect import may_pass_later
from qworkerd.scheduler.refusals import Refusals
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot

Database = psycopg.Connection[tuple[Any, ...]]

#: Deaths that are nobody's fault: the job is given back uncounted, but the loss is noted.
BLAMELESS = frozenset({"lease", "supervisor-lost"})
#: The operator's doing: not counted at all.
REQUESTED = frozenset({"shutdown", "cancelled"})
#: A thread of the worker's own that did not go on, be it that the running handler has kept it from that (held the GIL,
#: replaced what it calls): the loss is counted, so that this ends.
STALLED = "stalled"

#: What is said of a job that ran, and of one that had ended.
RUNNING = "the worker died while it ran this job"
UNSTORED = "the worker died before the outcome of this job was stored"

_HOOKED = 2


class Settlement:
    """Writes what stands in a slot. Every statement is fenced by the claim's token, so it may be repeated."""

    def __init__(self, node: NodeContext, nodes: Nodes, reporter: Reporter) -> None:
        self._node = node
        self._nodes = nodes
        self._reporter = reporter
        self._claims = Claims(node.settings.schema)
        self._refusals = Refusals(self._claims)
        self._policies = Policies(node.settings)
        self._tasks = node.app.tasks
        self._log = log.get()

    def recover_claim(self, database: Database, slot: Slot, claim: Claim) -> int:
        """Settle one claim; return how many jobs became available.

        A job whose outcome stands in the slot is settled as what it was. Of the others the one that can be to blame for
        the death is charged, what was not started goes back. Jobs that somebody has locked are left for the next time.
        """
        token, node = claim.token, self._node.table.header.node
        abandoned = self._refusals.abandoned(token)
        held = {job.id: job for job in self._nodes.claim_jobs(database, node, token) if job.id not in abandoned}
        done, unknown = self._read(claim, held)
        spared, freed = {job for _, job, _ in done}, 0
        for errand in group(done):
            changed = self._write(errand, database)
            freed += len(changed) if isinstance(errand, ReleaseWrite) else 0

        def decide(how: Callable[..., int], job: int, what: str) -> int:
            spared.add(job)
            write = partial(how, database, token, held[job], slot, what)
            return self._refusals.attempt(database, token, job, write, 0)

        running = slot.current()
        if slot.cause not in REQUESTED:
            if running is not None:
                if running.id in held:
                    freed += decide(self._lose if slot.cause == STALLED else self._charge, running.id, RUNNING)
            elif unknown:
                freed += decide(self._charge, unknown.pop(), UNSTORED)
            for job in unknown:
                freed += decide(self._lose, job, UNSTORED)
        # Should one of them be locked, it goes back next time: it is not the last of those that were finished.
        claim.mark(unknown, Status.UNSTARTED)
        freed += self.release(database, token, spared)
        self._refusals.raise_last()
        return freed

    def release(self, database: Database, token: int, spared: Collection[int] = ()) -> int:
        """Give back what a claim holds, but for some jobs; return how many. One that is refused holds up no other."""
        node, spared = self._node.table.header.node, {*spared, *self._refusals.abandoned(token)}
        try:
            return self._nodes.release_claim(database, node, token, spared)
        except psycopg.Error as error:
            self._refusals.note(database, error)
            if may_pass_later(error):
                return 0
        freed = 0
        for job in self._nodes.claim_jobs(database, node, token):
            if job.id not in spared:
                write = partial(self._claims.release, database, token, [job.id])
                freed += len(self._refusals.attempt(database, token, job.id, write, list[int]()))
        return freed

    def raise_refusal(self) -> None:
        """Raise the last error after which something has to be tried again, if there was one."""
        self._refusals.raise_last()

    def is_over(self, database: Database, token: int) -> bool:
        """Tell whether nothing of a claim is left to be tried again."""
        held = self._nodes.claim_jobs(database, self._node.table.header.node, token)
        over = {job.id for job in held} <= self._refusals.abandoned(token)
        if over:
            self._refusals.forget(token)
        return over

    def _read(self, claim: Claim, held: dict[int, HeldJob]) -> tuple[list[Done], list[int]]:
        """Return what became of the finished jobs that are still the claim's, and those of which nothing can be read.

        These are rare: the slot was full and the database did not take any, or its memory is damaged; then it may even
        lack jobs of the claim.
        """
        done: list[Done] = []
        entries = claim.entries()
        unknown = [*(held.keys() - {entry.id for entry in entries})] if entries else []
        for place, entry in enumerate(entries):
            if entry.id not in held or entry.status in (Status.UNSTARTED, Status.RUNNING):
                continue
            outcome = None if entry.status is Status.SUCCEEDED else load(claim.read_outcome(place))
            if outcome is not None or entry.status is Status.SUCCEEDED:
                done.append((claim, entry.id, outcome))
            else:
                unknown.append(entry.id)
        return done, unknown

    def _write(self, errand: Write, database: Database) -> list[int]:
        """Run an errand; what the database chokes on is left out."""
        try:
            return errand.write(self._claims, database)
        except psycopg.Error as error:
            if database.closed:
                raise
            if may_pass_later(error):
                self._refusals.note(database, error)
                return []
        if len(errand.ids) > 1:
            other = errand.split()
            return self._write(errand, database) + self._write(other, database)
        errand.drop_details()
        write = partial(errand.write, self._claims, database)
        return self._refusals.attempt(database, errand.token, errand.ids[0], write, [])

    def _lose(self, database: Database, token: int, job: HeldJob, slot: Slot, what: str) -> int:
        """Give back a job that may have a part in the death: `max_losses` times, and from now on without neighbours."""
        record = self._record(slot, job, what)
        lost = self._nodes.record_node_loss(
            database, token, job.id, self._node.settings.max_node_losses, json.dumps(record), self._node.hooks
        )
        self._reporter.submit_losses(lost, record)
        return len(lost)

    def _record(self, slot: Slot, job: HeldJob, what: str) -> dict[str, Any]:
        """Put on record what is known of the death."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "attempt": job.attempt, "type": "WorkerDied",
            "message": f"{what}: {slot.cause}", "traceback": slot.stacks.read(),
            "cause": slot.cause, "phase": Phase(slot.phase).name.lower(), "ran": round(slot.ended - slot.started, 3),
            "maxrss_mib": slot.maxrss, "cpu": round(slot.cpu, 3),
        }  # fmt: skip

    def _charge(self, database: Database, token: int, job: HeldJob, slot: Slot, what: str) -> int:
        """Decide about the job that can be to blame; return 1 if it became available."""
        cause, record = slot.cause, self._record(slot, job, what)
        error = json.dumps(record)
        facts = {"job": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt, "cause": cause}
        if job.cancelled:
            self._claims.end(database, token, job.id, state="cancelled", error=error, duration=0.0)
            self._log.warning("job.cancelled", **facts)
            return 0
        if cause in BLAMELESS:
            lost = self._nodes.record_node_loss(
                database, token, job.id, self._node.settings.max_node_losses, error, self._node.hooks
            )
            self._reporter.submit_losses(lost, record)
            return len(lost)
        task = self._tasks.get(job.task)
        policy = self._policies.find(task, job.overrides)
        crashes = job.crashes + 1
        if crashes >= self._node.settings.max_crashes or job.attempt >= policy.max_attempts:
            hook = task is not None and task.hook is not None and not job.flags & _HOOKED
            if self._claims.fail(database, token, job.id, error=error, hook=hook, crashes=1):
                self._log.error("job.failed", **facts, crashes=crashes)
                self._reporter.submit(Failure(job.id, job.task, job.queue, job.attempt, record, final=True))
            return 0
        delay = policy.retry.delay(job.attempt) if cause == "timeout" else 0.0
        if not self._nodes.record_crash(database, token, job.id, delay=delay, error=error):
            return 0
        self._log.warning("job.crashed", **facts, crashes=crashes, retry_in=round(delay, 3))
        self._reporter.submit(Failure(job.id, job.task, job.queue, job.attempt, record, final=False))
        return 1
