"""Reads jobs, queues and nodes, and cancels, retries or discards jobs: for the command line and the methods of Job."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qworker.actor import current_actor
from qworker.ambient import Ambient
from qworker.db.drivers import Caller, in_transaction, rows
from qworker.db.pool import Pool
from qworker.db.sessions import reference
from qworker.db.statements import load
from qworker.error_groups import GroupState
from qworker.errors import JobNotFound
from qworker.explanation import Explanations
from qworker.job import Job, JobState, job_from_row
from qworker.job_logs import AttemptLog, NewLines
from qworker.log_reader import LogReader
from qworker.nodes import Nodes, find
from qworker.options import UNSET, check_move
from qworker.overview import Overview
from qworker.payload import Row, as_stored
from qworker.reasons import Explanation
from qworker.schedules import StoredSchedules
from qworker.spec import JobSpec
from qworker.stacks import TIMEOUT, JobStack, JobStacks
from qworker.waiting import Waiter, not_found

#: Maximum number of jobs that `iterate` reads at once.
PAGE = 500


class Admin(Overview):
    """The operations on one schema; each is one statement.

    Operations on jobs join the caller's transaction: that of `conn` while it is open, or else Django's. All others
    commit at once.
    """

    def __init__(
        self,
        pool: Pool,
        ambient: Ambient | None = None,
        load_result: Callable[[str, Any], Any] = lambda _task, result: result,
        check_arguments: Callable[[str, Row], dict[str, Any]] = lambda _task, given: as_stored(given),
    ) -> None:
        """Take functions of the application, which are called with the name of a task.

        load_result converts a result that was decoded from JSON. check_arguments returns arguments as they are stored.
        """
        super().__init__(pool, ambient or Ambient(pool))
        self._waiter = Waiter(pool, self._ambient, load_result)
        self._sql = load("admin", pool.schema)
        #: Return arguments, by name or by position, as they are stored, checked against a task of the application.
        self.check_arguments = check_arguments
        self._explanations = Explanations(pool.schema)
        self._schedules = StoredSchedules(pool.schema)
        self._nodes = Nodes(pool.schema)
        self._stacks = JobStacks(pool.schema)
        self._logs = LogReader(pool, lambda job_id: self._show(job_id, None))

    def show(self, job_id: int, *, conn: Any = None) -> Job:
        """Return a job; raises JobNotFound if it does not exist."""
        return self._show(job_id, self._ambient.joined(conn))

    def get(self, job_id: int, conn: Any = UNSET) -> Job:
        """Return a job read on the caller's connection; see `App.job`."""
        return self._show(job_id, self._ambient.reader(conn))

    def _show(self, job_id: int, joined: Caller | None) -> Job:
        # The snapshot of a transaction may be older than the job.
        for transaction in [joined, None] if joined is not None and in_transaction(joined) else [joined]:
            for row in self._query("show", {"id": job_id}, transaction):
                reader = None if transaction is None else reference(transaction)
                return job_from_row(row._asdict(), self, conn=reader)
        raise not_found(job_id)

    def explain(self, job_id: int) -> Explanation:
        """Explain why a job does not run, or how it ended; raises JobNotFound."""
        job = self._show(job_id, None)
        with self._pool.connection(None) as conn:
            return self._explanations.explain(conn, job)

    def show_many(self, job_ids: Sequence[int]) -> list[Job]:
        """Return those of the jobs that exist, read on the caller's connection."""
        rows = self._query("show_many", {"ids": list(job_ids)}, self._ambient.reader())
        found = {job.id: job for job in (job_from_row(row._asdict(), self) for row in rows)}
        return [found[job_id] for job_id in job_ids if job_id in found]

    def find(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        unique: str | None = None,
        below: int | None = None,
        limit: int = 50,
        conn: Any = UNSET,
    ) -> list[Job]:
        """Return jobs, newest first; unique is a key that they hold, `below` the last id of the page before.

        conn: see `App.job`.
        """
        wanted = None if state is None else JobState(state).value
        parameters = {
            "state": wanted, "queue": queue, "task": task, "tag": tag, "key": unique, "below": below, "limit": limit
        }  # fmt: skip
        caller = self._ambient.reader(conn)
        name = "find" if unique is None else "find_holders"
        reader = None if caller is None else reference(caller)
        return [job_from_row(row._asdict(), self, conn=reader) for row in self._query(name, parameters, caller)]

    def iterate(self, *, limit: int | None = None, conn: Any = UNSET, **wanted: Any) -> Iterator[Job]:
        """Yield jobs, newest first, read page by page; see `find` for what can be wanted."""
        JobState(wanted.get("state") or JobState.AVAILABLE)  # an invalid state raises here and not at the first job
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be 0 or more, or None for all jobs, not {limit!r}")
        return self._pages(limit, conn, wanted)

    def _pages(self, limit: int | None, conn: Any, wanted: Mapping[str, Any]) -> Iterator[Job]:
        left, below = float("inf") if limit is None else limit, None
        while left > 0:
            size = int(min(left, PAGE))
            page = self.find(below=below, limit=size, conn=conn, **wanted)
            yield from page
            if len(page) < size:
                return
            left, below = left - size, page[-1].id

    def cancel(self, *job_ids: int, conn: Any = None) -> dict[int, JobState]:
        """Cancel jobs. Return those that had not ended: `cancelled` now, or `running` and asked to stop."""
        return {row.id: JobState(row.state) for row in self._act("cancel", job_ids, conn)}

    def retry(self, *job_ids: int, args: Mapping[str, Any] | None = None, conn: Any = None) -> list[int]:
        """Make failed jobs available again with all their attempts; return the ids of those that had failed.

        args are arguments by name, encoded for JSON, that replace those of the jobs.
        """
        encoded = None if args is None else json.dumps(args, allow_nan=False)
        return sorted(row.id for row in self._act("retry", job_ids, conn, args=encoded))

    def discard(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Move failed jobs to the history as discarded; return the ids of those that had failed."""
        return sorted(row.id for row in self._act("discard", job_ids, conn))

    def run_now(self, *job_ids: int, conn: Any = None) -> list[int]:
        """Make scheduled jobs available at once; return the ids of those that were scheduled."""
        return sorted(row.id for row in self._act("run_now", job_ids, conn))

    def move(
        self, *job_ids: int, queue: str | None = None, priority: int | None = None, conn: Any = None
    ) -> list[int]:  # fmt: skip
        """Give jobs another queue or priority; return the ids of those that were moved.

        Running and ended jobs are not moved, nor are those that are there already.
        """
        check_move(queue, priority)
        return sorted(row.id for row in self._act("move", job_ids, conn, queue=queue, priority=priority))

    def again(self, *job_ids: int, args: Mapping[str, Any] | None = None, conn: Any = None) -> dict[int, int]:
        """Enqueue copies of jobs that have ended or failed; return the id of each copy by that of its original.

        A copy has the task, arguments, queue, priority and tags of its original, and names it in `meta` as `copy_of`.
        It holds no unique key. The timeout and the retries are those of the task. Failure hooks are not copied.
        args are arguments by name, encoded for JSON, that replace those of the originals.
        """
        encoded = None if args is None else json.dumps(args, allow_nan=False)
        return {row.id: row.new_id for row in self._act("again", job_ids, conn, args=encoded)}

    def _act(self, name: str, job_ids: Sequence[int], conn: Any, **options: Any) -> list[Any]:
        """Execute a statement that changes jobs and records who has changed them."""
        parameters = {"ids": list(job_ids), **options, **current_actor().parameters}
        return self._query(name, parameters, self._ambient.joined(conn))

    def pause(self, *queues: str, reason: str | None = None, by: str | None = None) -> list[str]:
        """Pause queues on all nodes; return those that were not paused. The change commits at once."""
        with self._pool.connection(None) as conn:
            return self._queues.pause(conn, queues, reason, by)

    def resume(self, *queues: str) -> list[str]:
        """Resume queues; return those that were paused. The change commits at once."""
        with self._pool.connection(None) as conn:
            return self._queues.resume(conn, queues)

    def pause_nodes(self, *nodes: int | str, reason: str | None = None) -> list[int]:
        """Let the workers of nodes claim no jobs; return the ids of those that were not paused. Commits at once.

        nodes: their ids or names. Jobs that run finish; those that were claimed and not started are released. It takes
        effect within 1.5 s, and lasts until the node is resumed or ends: a node that is started again is another one.
        Raises NodeNotFound, and pauses none, if one of them is not alive.
        """
        ids = [find(node, known).id for known in [self.nodes()] for node in nodes]
        with self._pool.connection(None) as conn:
            return self._nodes.pause(conn, ids, reason)

    def resume_nodes(self, *nodes: int | str) -> list[int]:
        """Let the workers of nodes claim jobs again; return the ids of those that were paused. Commits at once."""
        ids = [find(node, known, live=False).id for known in [self.nodes()] for node in nodes]
        with self._pool.connection(None) as conn:
            return self._nodes.resume(conn, ids)

    def change_error_group(self, fingerprint: str, state: GroupState | str) -> bool:
        """Set the state of a group of errors: open, muted or resolved; return False if it already had it."""
        with self._pool.connection(None) as conn:
            return self._errors.change(conn, fingerprint, state)

    def stack(self, job_id: int, timeout: float = TIMEOUT) -> JobStack:
        """Return the stacks of the worker that runs a job; raises StackUnavailable with the reason, and JobNotFound."""
        with self._pool.connection(None) as conn:
            try:
                return self._stacks.read(conn, job_id, timeout)
            except JobNotFound:
                raise not_found(job_id) from None

    def logs(self, job_id: int, attempt: int | None = None) -> list[AttemptLog]:
        """Return the log lines that are stored of the attempts of a job, oldest first; others are left out."""
        return self._logs.stored(self._show(job_id, None), attempt)

    def lines_after(self, job_id: int, cursor: str | None = None, *, follow: bool = False) -> NewLines:
        """Return the log lines of a job behind a cursor, the one that the call before has returned; None for all.

        follow: also those of the attempt that runs, for which its node is asked. Call this at least every five seconds
        then, and `unfollow` at the end. Lines arrive within a second. For a role that may only read, and on a standby,
        they arrive when the attempt has ended, or while another user follows the job. Raises JobNotFound, and
        ValueError for a string that is not a cursor.
        """
        return self._logs.after(job_id, cursor, follow=follow)

    def unfollow(self, job_id: int) -> None:
        """Tell the nodes that nobody follows a job any more; without it they find out within ten seconds.

        Does nothing for a role that may only read, and on a standby.
        """
        self._logs.unfollow(job_id)

    def pause_schedules(self, *names: str, reason: str | None = None) -> list[str]:
        """Skip the ticks of schedules until they are resumed; return those that were not paused. Commits at once."""
        with self._pool.connection(None) as conn:
            return self._schedules.pause(conn, names, reason)

    def resume_schedules(self, *names: str) -> list[str]:
        """Enqueue the ticks of schedules again; return those that were paused. Commits at once.

        Ticks of the time of the pause are not enqueued, whatever the schedule does with missed ticks.
        """
        with self._pool.connection(None) as conn:
            return self._schedules.resume(conn, names)

    def run_schedule(self, name: str, spec: JobSpec, key: str | None) -> Job:
        """Enqueue the job of a schedule now; see `App.run_schedule`."""
        with self._pool.connection(None) as conn:
            tick = self._schedules.run(conn, spec, key, name=name)
        if tick.job is not None:
            return self.show(tick.job)
        assert tick.holder is not None  # noqa: S101
        return replace(self.show(tick.holder), duplicate=True)

    def wait(self, job_id: int, timeout: float | None = None, conn: Any = None) -> Any:
        """Wait for a job to end and return its result; see `Job.wait`. conn is the connection that enqueued it."""
        return self._waiter.wait(job_id, timeout, conn)

    def holder(self, conn: Caller, job_id: int, spec: JobSpec) -> Job:
        """Return the job that holds a unique key, read on the connection that tried to take the key."""
        for row in rows(conn, self._sql["show"], {"id": job_id}):
            return job_from_row(row._asdict(), self, duplicate=True)
        return self.unseen_holder(job_id, JobState.FORGOTTEN, spec)

    def unseen_holder(self, job_id: int, state: str, spec: JobSpec) -> Job:
        """Return the job that holds a unique key, if no more is known of it than its id and its state."""
        return Job(
            id=job_id, state=JobState(state), queue=spec.queue, priority=spec.priority, task=spec.task, args={},
            duplicate=True, _actions=self,
        )  # fmt: skip

    def _query(self, name: str, parameters: Mapping[str, Any] | None = None, joined: Caller | None = None) -> list[Any]:
        """Return the rows as named tuples."""
        joined = joined or self._ambient.default()
        with self._pool.connection(joined) as conn:
            return rows(conn, self._sql[name], parameters)
