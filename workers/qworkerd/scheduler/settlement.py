"""Settles a dead worker's claim according to the outcomes in its slot, or to the cause of its death."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg

from qworker.claims import Claims
from qworker.db.statements import Database
from qworker.recovery import HeldJob, Recovery
from qworkerd import log
from qworkerd.config.policy import Policies
from qworkerd.log import jobs
from qworkerd.log.job_lines import as_fields
from qworkerd.outcomes.counting import Facts, count_written
from qworkerd.outcomes.decide import decide_crash
from qworkerd.outcomes.outcome import Crashed, Failed, Lost, Terminated, load
from qworkerd.outcomes.record import DIED, error_record, identify
from qworkerd.outcomes.reports import Failure, Reporter
from qworkerd.outcomes.unconfirmed import count_left
from qworkerd.outcomes.writes import CrashWrite, Done, LossWrite, OutcomeWrite, ReleaseWrite, Write, group
from qworkerd.process.reconnect import is_transient
from qworkerd.scheduler.rejections import Rejections
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.tally import Counter, TallyWriter

#: The messages for a job that ran, and for one that had ended.
RUNNING = "the worker died while it ran this job"
UNSTORED = "the worker died before the outcome of this job was stored"


class Settlement:
    """Settles the jobs of dead slots. The claim's token fences every statement, so it can be repeated."""

    def __init__(self, node: NodeContext, recovery: Recovery, reporter: Reporter, tally: TallyWriter) -> None:
        self._node = node
        self._tally = tally
        #: What is counted of the jobs that are being settled.
        self._facts: dict[int, Facts] = {}
        self._recovery = recovery
        self._reporter = reporter
        self._claims = Claims(node.settings.schema)
        self._rejections = Rejections(self._claims)
        self._policies = Policies(node.settings)
        self._tasks = node.app.tasks
        self._log = log.get()

    def recover_claim(self, database: Database, slot: Slot, claim: Claim) -> int:
        """Settle one claim; return the number of jobs that became available.

        A job whose outcome is stored in the slot is settled with it. Of the others, a crash is counted for the one that
        may have caused the death, and those that were not started are released. Locked jobs are left for the next call.
        """
        token, node = claim.token, self._node.table.header.node
        abandoned = self._rejections.abandoned(token)
        held = {job.id: job for job in self._recovery.claim_jobs(database, node, token) if job.id not in abandoned}
        self._facts = {job.id: (self._tally.numbers[job.queue, job.task], job.waited) for job in held.values()}
        done, unknown = self._read(claim, held)
        excluded, released = {job for _, job, _ in done}, 0
        for write in group(done):
            changed = self._write(write, database)
            released += len(changed) if isinstance(write, ReleaseWrite) else 0

        cause, running = Cause.of(slot.cause), slot.current()
        if cause.counts_attempt or cause.counts_loss:
            if running is not None:
                if running.id in held and running.id not in excluded:
                    excluded.add(running.id)
                    released += self._settle(database, slot, claim, held[running.id], RUNNING)
            elif unknown:
                job = unknown.pop()
                excluded.add(job)
                released += self._settle(database, slot, claim, held[job], UNSTORED)
            for job in unknown:
                excluded.add(job)
                released += self._write_loss(database, claim, job, Lost(self._record(slot, held[job], UNSTORED)))
        # If one of them is locked, the next call releases it, because it is not the last one that finished.
        claim.mark(unknown, Status.UNSTARTED)
        released += self.release(database, token, excluded)
        self._rejections.raise_last()
        return released

    def release(self, database: Database, token: int, excluded: Collection[int] = ()) -> int:
        """Release the jobs of a claim except `excluded`; return their number. A rejected job does not delay others."""
        node, excluded = self._node.table.header.node, {*excluded, *self._rejections.abandoned(token)}
        try:
            ids = self._recovery.release_claim(database, node, token, excluded)
            self._count_released(ids)
            released = len(ids)
        except psycopg.Error as error:
            self._rejections.record(database, error)
            if is_transient(error):
                return 0
            released = 0
        for job in self._recovery.claim_jobs(database, node, token):
            if job.id not in excluded:
                statement = partial(self._claims.release, database, token, [job.id])
                ids = self._rejections.attempt(database, token, job.id, statement, list[int]())
                self._count_released(ids)
                released += len(ids)
        return released

    def raise_last(self) -> None:
        """Raise the last error after which a write has to be repeated, if there was one."""
        self._rejections.raise_last()

    def is_over(self, database: Database, token: int) -> bool:
        """Return whether all jobs of a claim are settled or abandoned."""
        held = self._recovery.claim_jobs(database, self._node.table.header.node, token)
        finished = {job.id for job in held} <= self._rejections.abandoned(token)
        if finished:
            self._rejections.discard(token)
        return finished

    def count_rest(self, database: Database, slot: Slot, claim: Claim) -> None:
        """Count what the worker, or a scheduler before this one, had written when it was killed.

        Call this when the claim is over: until then, a commit may still be executed.
        """
        count_left(self._tally, self._recovery, database, slot, claim, self._rejections.abandoned(claim.token))

    def _read(self, claim: Claim, held: dict[int, HeldJob]) -> tuple[list[Done], list[int]]:
        """Return the outcomes of the claim's finished jobs, and the finished jobs without a readable outcome.

        A job that is marked as running has finished if its outcome is stored: the worker died before it marked the job.
        The latter are rare: the slot was full while the database was unavailable, or its memory is damaged; it may then
        even lack jobs of the claim.
        """
        done: list[Done] = []
        entries = claim.entries()
        unknown = [*(held.keys() - {entry.id for entry in entries})] if entries else []
        for index, entry in enumerate(entries):
            if entry.id not in held or entry.status is Status.UNSTARTED:
                continue
            outcome = None if entry.status is Status.SUCCEEDED else load(claim.read_outcome(index))
            if outcome is not None or entry.status is Status.SUCCEEDED:
                done.append((claim, entry.id, outcome))
            elif entry.status is not Status.RUNNING:
                unknown.append(entry.id)
        return done, unknown

    def _write(self, write: Write, database: Database) -> list[int]:
        """Run a write; if the database rejects it, run it for each job, and without the rejected values."""
        changed: list[int] = []
        try:
            changed = write.write(self._claims, database)
            self._count(write, changed)
            if write.ends:
                self._reporter.ended(changed)
            write.ids = [job for job in write.ids if job not in changed]
            if not write.ids:
                return changed
        except psycopg.Error as error:
            if database.closed:
                raise
            if is_transient(error):
                self._rejections.record(database, error)
                return []
            if len(write.ids) == 1:
                write.drop_details()
        if len(write.ids) > 1:
            other = write.split()
            return changed + self._write(write, database) + self._write(other, database)
        statement = partial(write.write, self._claims, database)
        again = self._rejections.attempt(database, write.token, write.ids[0], statement, list[int]())
        self._count(write, again)
        if write.ends:
            self._reporter.ended(again)
        return changed + again

    def _count(self, write: Write, changed: list[int]) -> None:
        write.claim.mark_counted(changed)
        count_written(self._tally, write, changed, self._facts)

    def _count_released(self, ids: list[int]) -> None:
        for job in ids:
            if job in self._facts:
                self._tally.count(self._facts[job][0], Counter.RELEASED)

    def _record(self, slot: Slot, job: HeldJob, message: str) -> dict[str, Any]:
        """Return the error record for the death of the worker."""
        return identify(error_record(
            DIED, f"{message}: {slot.cause}", slot.cause, traceback=slot.stacks.read(), attempt=job.attempt,
            phase=Phase(slot.phase).name.lower(), ran=round(slot.ended - slot.started, 3), maxrss_mib=slot.maxrss,
            cpu=round(slot.cpu, 3), **(_left_behind(slot, job) if message is RUNNING else {}),
        ), job.task)  # fmt: skip

    def _settle(self, database: Database, slot: Slot, claim: Claim, job: HeldJob, message: str) -> int:
        """Settle the job that may have caused the death; return 1 if it became available."""
        record = self._record(slot, job, message)
        task = self._tasks.get(job.task)
        policy = self._policies.find(task, job.overrides)
        hook = task is not None and task.hook is not None and not job.is_hook
        outcome = decide_crash(
            job, policy, Cause.of(slot.cause), record, ran=message is RUNNING, hook=hook,
            max_crashes=self._node.settings.max_crashes,
        )  # fmt: skip
        if isinstance(outcome, Lost):
            return self._write_loss(database, claim, job.id, outcome)
        if message is RUNNING and not isinstance(outcome, Terminated):
            outcome = replace(outcome, duration=max(slot.ended - slot.started, 0.0))
        write: Write
        if isinstance(outcome, Crashed):
            write = CrashWrite(claim, job.id, outcome, self._recovery)
        else:
            write = OutcomeWrite(claim, job.id, outcome)
        if not self._write(write, database):
            return 0
        self._log_death(slot, job, outcome)
        return int(isinstance(outcome, Crashed))

    def _write_loss(self, database: Database, claim: Claim, job: int, outcome: Lost) -> int:
        """Count the loss of a job that is released, or fails; return 1 if it was written."""
        settings = self._node.settings
        write = LossWrite(claim, job, outcome, self._recovery, settings.max_node_losses, self._node.hooks)
        changed = self._write(write, database)
        self._reporter.submit_losses(write.lost, outcome.error)
        return len(changed)

    def _log_death(self, slot: Slot, job: HeldJob, outcome: Failed | Terminated | Crashed) -> None:
        """Log and report the outcome of a job whose worker died."""
        ran = slot.ended - slot.started
        if isinstance(outcome, Terminated):
            jobs.cancelled(self._log, job, outcome.error, duration=ran)
            return
        if isinstance(outcome, Failed):
            jobs.failed(self._log, job, outcome.error, duration=ran)
        else:
            jobs.crashed(self._log, job, outcome.error, duration=ran, crashes=job.crashes + 1, retry_in=outcome.delay)
        final = isinstance(outcome, Failed)
        self._reporter.submit(
            Failure(job=job.id, task=job.task, queue=job.queue, attempt=job.attempt, error=outcome.error, final=final)
        )


def _left_behind(slot: Slot, job: HeldJob) -> dict[str, Any]:
    """Return what the attempt has left in the slot: its log lines, and its trace."""
    traceparent = slot.trace_of(slot.started)
    found = as_fields(slot.lines.read(job.id, slot.started))
    return found if traceparent is None else found | {"traceparent": traceparent}
