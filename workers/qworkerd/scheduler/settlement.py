"""Settle a dead worker's claim: each job as what became of it, or as what the death of its worker makes of it."""

import json
from datetime import UTC, datetime
from typing import Any

import psycopg

from qworker.claims import Claims
from qworker.nodes import HeldJob, Nodes
from qworkerd import log
from qworkerd.config.policy import Policies
from qworkerd.outcomes.outcome import load
from qworkerd.outcomes.reports import Failure, Reporter
from qworkerd.outcomes.writes import Done, ReleaseWrite, Write, group
from qworkerd.process.reconnect import REFUSED
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot

Database = psycopg.Connection[tuple[Any, ...]]

#: Deaths that are nobody's fault: the job is given back uncounted, but the loss is noted.
BLAMELESS = frozenset({"lease", "supervisor-lost"})
#: The operator's doing: not counted at all.
REQUESTED = frozenset({"shutdown", "stalled", "cancelled"})

_HOOKED = 2


class Settlement:
    """Writes what stands in a slot. Every statement is fenced by the claim's token, so it may be repeated."""

    def __init__(self, node: NodeContext, nodes: Nodes, reporter: Reporter) -> None:
        self._node = node
        self._nodes = nodes
        self._reporter = reporter
        self._claims = Claims(node.settings.schema)
        self._policies = Policies(node.settings)
        self._tasks = node.app.tasks
        self._log = log.get()

    def recover_claim(self, database: Database, slot: Slot, claim: Claim) -> int:
        """Settle one claim; return how many jobs became available.

        A job whose outcome stands in the slot is settled as what it was. Of the others the one that can be to blame for
        the death is charged, what was not started goes back. Jobs that somebody has locked are left for the next time.
        """
        token, node = claim.token, self._node.table.header.node
        held = {job.id: job for job in self._nodes.claim_jobs(database, node, token)}
        done, unknown = self._read(claim, held)
        spared, freed, failed = [job for _, job, _ in done], 0, None
        for errand in group(done):
            try:
                changed = self._write(errand, database)
            except psycopg.Error as error:  # one job that cannot be written must not hold up the others
                if database.closed:
                    raise
                failed = error
            else:
                freed += len(changed) if isinstance(errand, ReleaseWrite) else 0
        running = slot.current()
        if running is not None:
            if running.id in held and slot.cause not in REQUESTED:
                spared.append(running.id)
                freed += self._charge(database, token, held[running.id], slot, "the worker died while it ran this job")
        elif unknown and slot.cause not in REQUESTED - {"stalled"}:
            last = unknown.pop()
            spared.append(last)
            freed += self._charge(
                database, token, held[last], slot, "the worker died before the outcome of this job was stored"
            )
        if slot.cause not in REQUESTED - {"stalled"}:
            freed += sum(self._lose(database, token, held[job], slot) for job in unknown)
        # Should one of them be locked, it goes back next time: it is not the last of those that were finished.
        claim.mark(unknown, Status.UNSTARTED)
        freed += self._nodes.release_claim(database, node, token, spared)
        if failed is not None:
            raise failed
        return freed

    def _read(self, claim: Claim, held: dict[int, HeldJob]) -> tuple[list[Done], list[int]]:
        """Return what became of the finished jobs that are still the claim's, and those of which nothing can be read.

        These are rare: the slot was full and the database did not take any, or its memory is damaged.
        """
        done: list[Done] = []
        unknown = []
        for place, entry in enumerate(claim.entries()):
            if entry.id not in held or entry.status in (Status.UNSTARTED, Status.RUNNING):
                continue
            outcome = None if entry.status is Status.SUCCEEDED else load(claim.noted(place))
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
            if database.closed or isinstance(error, REFUSED):
                raise
        if len(errand.ids) > 1:
            other = errand.split()
            return self._write(errand, database) + self._write(other, database)
        errand.drop_details()
        return errand.write(self._claims, database)

    def _lose(self, database: Database, token: int, job: HeldJob, slot: Slot) -> int:
        """Give back a job that may have a part in the death: `max_losses` times, and from now on without neighbours."""
        record = self._record(slot, job, "the worker died before the outcome of this job was stored")
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
