"""Break one line at a time, and see the test that is there for it fail: `python -m tests.mutations [NAME ...]`.

Works on a copy of the tree; ends with 1 if a broken line goes unnoticed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.mutation import QUERIES, SCHEDULER, WORKER, Mutation
from tests.observed import OBSERVED

ROOT = Path(__file__).parents[1]
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=hasty")
PARTS = ("queue", "workers", "tests", "examples", "docs", "pyproject.toml", "setup.cfg")


MUTATIONS = [
    Mutation(
        "a claim from paused queues", f"{WORKER}/claimer.py",
        "        cursors = paused.exclude(cursors)\n", "",
        "tests/lifecycle/test_pause.py",
    ),
    Mutation(
        "an outcome that is logged before it is stored", f"{WORKER}/conclusions.py",
        "        self._store(outcome)\n        self._log_outcome(outcome, row, error, duration, policy)\n",
        "        self._log_outcome(outcome, row, error, duration, policy)\n        self._store(outcome)\n",
        "tests/lifecycle/test_bookkeeping.py",
    ),
    Mutation(
        "a stored outcome that counts only once its job is marked as ended", f"{SCHEDULER}/settlement.py",
        "entry.status is Status.UNSTARTED:", "entry.status in (Status.UNSTARTED, Status.RUNNING):",
        "tests/qworkerd/test_settlement.py",
    ),
    Mutation(
        "a pause that leaves claimed jobs to the worker", f"{WORKER}/acknowledger.py",
        "or batch.changes != self._node.paused.changes", "",
        "tests/lifecycle/test_pause.py",
    ),
    Mutation(
        "a node that takes its death for a resumption", f"{QUERIES}/registry.sql",
        "CASE WHEN nodes.registered THEN EXISTS (SELECT FROM {schema}.paused_node AS u WHERE u.node = %(node)s) END",
        "EXISTS (SELECT FROM {schema}.paused_node AS u WHERE u.node = %(node)s)",
        "tests/qworkerd/test_pauses.py",
    ),
    Mutation(
        "a node that registers again without its pause", f"{SCHEDULER}/lease.py",
        "            pause=self._node.kept_pause(),\n", "",
        "tests/qworkerd/test_pauses.py",
    ),
    Mutation(
        "a paused node with --burst that ends although jobs wait", f"{SCHEDULER}/burst.py",
        "        skipped = paused.queues\n", "        skipped = paused.names\n",
        "tests/lifecycle/test_pause_node.py",
    ),
    Mutation(
        "a history that takes an id once", "queue/qworker/sql/0001_initial.sql",
        "CREATE INDEX job_history_id ON {schema}.job_history (id);",
        "CREATE UNIQUE INDEX job_history_id ON {schema}.job_history (id, ring_day);",
        "tests/qworker/test_sequences.py",
    ),
    Mutation(
        "a lease that is believed whatever it says", f"{QUERIES}/registry.sql",
        "'lease_seconds', {lease}))", "'lease_seconds', n.lease_seconds))",
        "tests/qworkerd/test_values.py",
    ),
    Mutation(
        "a lane of refused jobs is searched to its end", f"{WORKER}/single.py",
        "return [PAST_END if counts[lane] >= MAX_REJECTED else cursor for", "return [cursor for",
        "tests/qworkerd/test_single.py",
    ),
    Mutation(
        "a tick whose key is locked is given up", f"{SCHEDULER}/schedules.py",
        "                next_ticks.append(at + RETRY_LOCKED_KEY)\n                continue",
        "                pass",
        "tests/qworkerd/test_cron.py",
    ),
    Mutation(
        "a schedule that has failed waits for its next tick", f"{SCHEDULER}/schedules.py",
        "                next_ticks.append(at + RETRY_AFTER_ERROR)\n                continue", "                pass",
        "tests/qworkerd/test_cron.py",
    ),
    Mutation(
        "a failed look that ends the round", f"{SCHEDULER}/poller.py",
        "            self.result = self._poll_separately(database, renew=renew)\n            return self.result",
        "            raise",
        "tests/qworkerd/test_values.py",
    ),
    Mutation(
        "acknowledge without the token", f"{QUERIES}/claims.sql",
        "WHERE j.id = ANY (%(ids)s::bigint[]) AND j.token = %(token)s", "WHERE j.id = ANY (%(ids)s::bigint[])",
        "tests/qworker/test_fence.py",
    ),
    Mutation(
        "an outcome without the token", f"{QUERIES}/fragments.sql",
        "WHERE l.id = %(id)s::bigint AND l.token = %(token)s::bigint\n",
        "WHERE l.id = %(id)s::bigint\n",
        "tests/qworker/test_fence.py",
    ),
    Mutation(
        "claims that wait for locked rows", f"{QUERIES}/fragments.sql",
        "         LIMIT %(limit)s\n           FOR UPDATE SKIP LOCKED\n       ) AS ready",
        "         LIMIT %(limit)s\n           FOR UPDATE\n       ) AS ready",
        "tests/qworker/test_claims.py",
    ),
    Mutation(
        "what is handed back keeps its attempt", f"{QUERIES}/claims.sql",
        "-- name: release\n"
        "-- Releases jobs that were not started: the attempt is not counted and they keep their seq.\n"
        "UPDATE {schema}.job AS j\n"
        "   SET state = 'available', {uncounted}",
        "-- name: release\n"
        "-- Releases jobs that were not started: the attempt is not counted and they keep their seq.\n"
        "UPDATE {schema}.job AS j\n"
        "   SET state = 'available', attempt = j.attempt",
        "tests/qworker/test_claims.py",
    ),
    Mutation(
        "a transactional job is not held before it is completed", "queue/qworker/claims.py",
        'if cursor.execute(self._sql["lock_claimed"], {"id": job, "token": token}).fetchone() is None:', "if False:",
        "tests/lifecycle/test_transactional.py",
    ),
    Mutation(
        "a lost commit is not looked for", "workers/qworkerd/outcomes/writes.py",
        "claims.end_session(database, self._lost.pid, self._lost.role)", "pass",
        "tests/lifecycle/test_transactional.py",
    ),
    Mutation(
        "the token is written after the claim", f"{WORKER}/claimer.py",
        "claim.open(new_token())\n        try:\n            rows = self._single.claim_next(claim, cursors) if single "
        "else self._claims.claim(\n"
        "                database, node=self._node.table.header.node, token=claim.token,",
        "token = new_token()\n        try:\n            rows = self._single.claim_next(claim, cursors) if single "
        "else self._claims.claim(\n"
        "                database, node=self._node.table.header.node, token=token,",
        "tests/qworkerd/test_claimer.py",
    ),
    Mutation(
        "no look at the lease before a job", f"{WORKER}/loop.py",
        "if clock_gettime(CLOCK_BOOTTIME) >= lease[Header.LEASE_UNTIL]:", "if False:",
        "tests/qworkerd/test_worker.py",
    ),
    Mutation(
        "no look at the lease before a claim", f"{WORKER}/loop.py",
        "if self.header.node == 0 or self.clock() >= self.header.lease_until:", "if self.header.node == 0:",
        "tests/qworkerd/test_worker.py",
    ),
    Mutation(
        "the scheduler stops first", "workers/qworkerd/supervisor/shutdown.py",
        "        self._signal(signal.SIGTERM)",
        "        self._signal(signal.SIGTERM); os.kill(self._scheduler.pid, signal.SIGTERM)",
        "tests/lifecycle/test_lease.py",
    ),
    Mutation(
        "workers outlive their supervisor", "workers/qworkerd/supervisor/child.py",
        "    if not set_pdeathsig(_DEATH_SIGNAL[role], parent):", "    if os.getppid() != parent:",
        "tests/lifecycle/test_lease.py",
    ),
    Mutation(
        "a lease that is out stops nobody", "workers/qworkerd/supervisor/loop.py",
        "if self.leased or self.shutdown.state is State.CLOSING:", "if True:",
        "tests/lifecycle/test_lease.py",
    ),
    Mutation(
        "no reconciliation", f"{SCHEDULER}/loop.py",
        'add("reconcile", RECONCILE_INTERVAL, self.reconcile)', "pass",
        "tests/lifecycle/test_crash.py",
    ),
    Mutation(
        "a node is dead at first sight", f"{SCHEDULER}/rescue.py",
        "if now - since < nodes[other].lease_seconds:", "if False:",
        "tests/lifecycle/test_lease.py",
    ),
    Mutation(
        "a node is deleted although it has renewed its lease", f"{QUERIES}/recovery.sql",
        "DELETE FROM {schema}.node WHERE id = %(dead)s AND heartbeat = %(heartbeat)s RETURNING id;",
        "DELETE FROM {schema}.node WHERE id = %(dead)s RETURNING id;",
        "tests/qworker/test_registry.py",
    ),
    Mutation(
        "the job that ran is not charged with the death", f"{SCHEDULER}/settlement.py",
        "                if running.id in held and running.id not in excluded:\n", "                if False:\n",
        "tests/lifecycle/test_crash.py",
    ),
    Mutation(
        "an obituary forgets what has succeeded", f"{SCHEDULER}/settlement.py",
        "            changed = write.write(self._claims, database)\n", "            return []\n",
        "tests/lifecycle/test_crash.py",
    ),
    Mutation(
        "a release lowers no watermark", "workers/qworkerd/shared/watermarks.py",
        "            slot.words[Slot.RELEASE_COUNT] += 1", "            pass",
        "tests/qworkerd/test_watermarks.py",
    ),
    Mutation(
        "watermarks rise above seqs that may still be filled", f"{SCHEDULER}/watermarks/settled.py",
        "            if writers:\n", "            if False:\n",
        "tests/qworkerd/test_watermarks.py",
    ),
    Mutation(
        "a tick is enqueued by everybody", f"{QUERIES}/schedules.sql",
        "WHERE name = %(name)s AND coalesce(last_tick, created_at) < to_timestamp(%(tick)s::float8)\n",
        "WHERE name = %(name)s\n",
        "tests/qworker/test_model.py",
    ),
    Mutation(
        "an interrupt inside of another exception is not looked for", "workers/qworkerd/outcomes/decide.py",
        "if isinstance(error, Interrupt) or (sent is None and not timed_out):", "if True:",
        "tests/lifecycle/test_wrapped_interrupts.py",
    ),
    Mutation(
        "a shutdown fails a job whose handler forgets its interrupt", "workers/qworkerd/outcomes/decide.py",
        "if found is None and sent is not None and", "if False and",
        "tests/qworkerd/test_decide.py",
    ),
    Mutation(
        "a cancelled job that fails is failed", f"{QUERIES}/claims.sql",
        "WHERE j.id = %(id)s AND EXISTS (SELECT FROM locked WHERE NOT cancelled)\n    RETURNING j.id, j.queue",
        "WHERE j.id = %(id)s AND EXISTS (SELECT FROM locked)\n    RETURNING j.id, j.queue",
        "tests/qworker/test_claims.py",
    ),
    Mutation(
        "an outcome in a dead worker's slot is not read", f"{SCHEDULER}/settlement.py",
        "else load(claim.read_outcome(index))", "else None",
        "tests/lifecycle/test_aftermaths.py",
    ),
    Mutation(
        "a job that breaks its worker after its end is not charged", f"{SCHEDULER}/settlement.py",
        "released += self._settle(database, slot, claim, held[job], UNSTORED)", "return 0",
        "tests/qworkerd/test_settlement.py",
    ),
    Mutation(
        "only the group of a child is killed", "workers/qworkerd/supervisor/reaper.py",
        "for kill in (os.killpg, os.kill):", "for kill in (os.killpg,):",
        "tests/lifecycle/test_escapes.py",
    ),
    Mutation(
        "a hard timeout kills nobody", "workers/qworkerd/supervisor/deadlines.py",
        "            child.kill(reason, now)\n            return", "            return",
        "tests/lifecycle/test_timeouts.py",
    ),
    Mutation(
        "names are looked up where others may create", "queue/qworker/db/connection.py",
        '    "search_path": PINNED,\n', "",
        "tests/qworker/test_search_path.py",
    ),
    Mutation(
        "a migration binds what others have created", "queue/qworker/migrations.py",
        '            cursor.execute(sql["set_path"], {"path": PINNED})\n', "",
        "tests/qworker/test_search_path.py",
    ),
    Mutation(
        "a fitting operator of others is called on a caller's connection", f"{QUERIES}/fragments.sql",
        "WHERE e.state OPERATOR(pg_catalog.=) 'available')\n",
        "WHERE e.state = 'available')\n",
        "tests/qworker/test_search_path.py",
    ),
    Mutation(
        "signals stay as a handler has left them", f"{WORKER}/dispositions.py",
        "        changed = self._restore()\n", "        changed: list[str] = []\n",
        "tests/lifecycle/test_signals.py",
    ),
    Mutation(
        "a deploy's own signal is charged to the job", "workers/qworkerd/supervisor/reaper.py",
        "        if signum in sent:\n            return Cause.SHUTDOWN\n", "",
        "tests/lifecycle/test_signals.py",
    ),
    Mutation(
        "the next job finds the session as the last has left it", f"{WORKER}/job_connection.py",
        "            reset(connection, failed=failed)\n", "",
        "tests/qworkerd/test_job_connection.py",
    ),
    Mutation(
        "the next job finds what the last has registered with the connection", f"{WORKER}/session.py",
        "        self._adapters = None", "        pass",
        "tests/qworkerd/test_job_connection.py",
    ),
    Mutation(
        "a limit that a job has set ends the next one", f"{WORKER}/process_state.py",
        "if (changed := self._limits.restore())", "if (changed := [])",
        "tests/lifecycle/test_hazards.py",
    ),
    Mutation(
        "a session in another database is joined", "queue/qworker/ambient.py",
        "if session is not None and self._is_ours(caller := unwrap(session), None):",
        "if session is not None and (caller := unwrap(session)):",
        "tests/qworker/test_sqlalchemy_session.py",
    ),
    Mutation(
        "a transaction that a handler has ended is not missed", f"{WORKER}/job_connection.py",
        "                    verify_transaction(connection, self._roles)", "                    pass",
        "tests/qworkerd/test_job_connection.py",
    ),
    Mutation(
        "connections that were read-only once are lent again", "queue/qworker/db/pool.py",
        "if read_only or (isinstance", "if (isinstance",
        "tests/qworker/test_sessions.py",
    ),
    Mutation(
        "the role's isolation applies to our statements", "queue/qworker/db/connection.py",
        '    "default_transaction_isolation": _ISOLATION,\n', "",
        "tests/qworker/test_sessions.py",
    ),
    Mutation(
        "a node works against a standby", "workers/qworkerd/process/reconnect.py",
        "raise psycopg.errors.ReadOnlySqlTransaction(reason)", "pass",
        "tests/qworkerd/test_reconnect.py",
    ),
    Mutation(
        "the first result decides about a commit", "queue/qworker/db/prepared.py",
        "execute(connection.pgconn))[-1]", "execute(connection.pgconn))[0]",
        "tests/qworker/test_triggers.py",
    ),
    Mutation(
        "the server hears the whole error of a bulk's source", "queue/qworker/bulk.py",
        "raise _Abandoned from None", "raise",
        "tests/qworker/test_bulk.py",
    ),
    Mutation(
        "databases of one name are one database", "queue/qworker/ambient.py",
        "same = _identity(own) == _identity(conn)", "same = True",
        "tests/qworker/test_django.py",
    ),
    Mutation(
        "a variable that a handler has set leads our connections elsewhere", "workers/qworkerd/shared/context.py",
        'return self.environment.pin(resolve_dsn(given) if given else "")', "return resolve_dsn(given)",
        "tests/lifecycle/test_hazards.py",
    ),
    Mutation(
        "a service that a handler has named stays named", f"{WORKER}/process_state.py",
        "if changed := self._environment.restore():", "if changed := []:",
        "tests/lifecycle/test_hazards.py",
    ),
    Mutation(
        "a connection takes the place of standard output", "workers/qworkerd/process/descriptors.py",
        "os.O_RDWR)) <= 2:", "os.O_RDWR)) < 0:",
        "tests/lifecycle/test_hazards.py",
    ),
    Mutation(
        "a write that a trigger suppresses is repeated for ever", f"{WORKER}/write_queue.py",
        "            raise_if_suppressed(self._claims, write, database)\n", "            pass\n",
        "tests/qworkerd/test_last_resort.py",
    ),
    Mutation(
        "a tick whose job is suppressed is recorded", "queue/qworker/schedules.py",
        "if any(suppressed for _, _, suppressed, _ in rows):", "if False:",
        "tests/qworkerd/test_suppressed.py",
    ),
    Mutation(
        "a job fails although its failure hook is suppressed", "queue/qworker/claims.py",
        "if not all(stored for _, _, stored in rows):", "if False:",
        "tests/qworkerd/test_suppressed.py",
    ),
    Mutation(
        "a node whose heartbeat is suppressed takes itself for dead", "workers/qworkerd/scheduler/lease.py",
        "if ctid is None and self._registry.find_ctid(database, number) is not None:", "if False:",
        "tests/qworkerd/test_suppressed.py",
    ),
    Mutation(
        "a worker that cannot store outcomes goes on", f"{WORKER}/write_queue.py",
        "BROKEN_AFTER = 3.0", "BROKEN_AFTER = 300.0",
        "tests/lifecycle/test_aftermaths.py",
    ),
    Mutation(
        "a handler orders its own worker to release it", f"{WORKER}/signal_handlers.py",
        "        if self._header.draining:\n", "        if True:\n",
        "tests/lifecycle/test_signals.py",
    ),
    Mutation(
        "a claim that a trigger suppresses starves the jobs behind", f"{WORKER}/claimer.py",
        "if self._single.suppressed(database, claim, cursors):", "if False:",
        "tests/lifecycle/test_suppressing_triggers.py",
    ),
    Mutation(
        "a suppressed settlement keeps the slot of a dead worker", "workers/qworkerd/scheduler/rejections.py",
        "if self._claims.lock(database, token, [job]):", "if False:",
        "tests/lifecycle/test_suppressing_triggers.py",
    ),
    Mutation(
        "a suppressed promotion goes unreported", "workers/qworkerd/scheduler/batched_write.py",
        "                    self._exclude(job, WriteSuppressed())\n                    continue\n",
        "                    return rows\n",
        "tests/lifecycle/test_suppressing_triggers.py",
    ),
    Mutation(
        "a patched standard library is served", "workers/qworkerd/cli/run.py", "        refuse_patches()\n", "",
        "tests/qworkerd/test_patches.py",
    ),
    Mutation(
        "classes of one factory look alike", "queue/qworker/identity.py",
        "return plain or code_of(value) is not None", "return code_of(value) is not None",
        "tests/qworker/test_identity.py",
    ),
    Mutation(
        "a stored payload that does not fit is tried again", "queue/qworker/errors.py",
        "class StoredPayloadInvalid(InvalidPayload, PermanentError):", "class StoredPayloadInvalid(InvalidPayload):",
        "tests/qworker/test_typed.py",
    ),
    Mutation(
        "a typed value is stored whatever it is read as", "queue/qworker/typed.py",
        "        if again != valid and (changed", "        if False and (changed", "tests/qworker/test_typed.py",
    ),
    Mutation(
        "the function for delays decides whether an attempt has failed", "workers/qworkerd/outcomes/decide.py",
        "    except BaseException as broken:  # noqa: BLE001 - `delays`",
        "    except ZeroDivisionError as broken:  # `delays`",
        "tests/qworkerd/test_decide.py",
    ),
    Mutation(
        "a test keeps what a failed attempt has written", "queue/qworker/testing/drain.py",
        "savepoint.undone = not isinstance(", "savepoint.undone = False and isinstance(", "tests/testing/test_drain.py",
    ),
    Mutation(
        "a handler closes the connection of the test", "queue/qworker/testing/transaction.py",
        "    with block, _kept_open(wrapper):\n", "    with block:\n", "tests/testing/test_pytest_django.py",
    ),
    Mutation(
        "a session keeps the connection that it has given back", "queue/qworker/testing/transaction.py",
        "app.ambient.bound = app.ambient.bound, conn\n", "app.ambient.bound = app.ambient.bound, unwrap(conn)\n",
        "tests/testing/test_join.py",
    ),
    Mutation(
        "jobs do not expire while a test travels", "queue/qworker/testing/drain.py",
        "expire(database, at=clock.at(), limit=_PAGE)", "expire(database, limit=_PAGE)", "tests/testing/test_drain.py",
    ),
    Mutation(
        "a node between tests takes the jobs of the next", "queue/pytest_qworker/node.py",
        "            self.stop()\n\n\nclass Nodes", "            pass\n\n\nclass Nodes", "tests/testing/test_plugin.py",
    ),
    Mutation(
        "a test is left without the timer of its watchdog", "queue/qworker/testing/attempts.py",
        "            if left:  # a watchdog of the test runner", "            if False:", "tests/testing/test_drain.py",
    ),
    *OBSERVED,
]  # fmt: skip


def tell(line: str) -> None:
    """Say how far it is, also into a pipe."""
    print(line, flush=True)  # noqa: T201 - it is a program


def notices(mutation: Mutation, tree: Path) -> bool:
    """Tell whether its tests fail with the line broken, and for no other reason than that."""
    path = tree / mutation.path
    whole = path.read_text()
    path.write_text(mutation.apply(tree))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, mutation.tests],
            cwd=tree, env={**os.environ, "PYTHONPATH": f"{tree / 'queue'}:{tree / 'workers'}"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        path.write_text(whole)
    failed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED tests/", "ERROR tests/"))), "")
    tell(f"      {failed[:150] or done.stdout[-2000:] + done.stderr[-2000:]}")
    # A shared fixture may be the first to notice: then it is an error in a test's setup.
    return done.returncode == 1 and failed.startswith((f"FAILED {mutation.tests}::", f"ERROR {mutation.tests}::"))


def main(*names: str) -> int:
    """Try the mutations of these names, or all; return 1 if one goes unnoticed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copy goes as well
    unnoticed = []
    with tempfile.TemporaryDirectory(prefix="qworker-mutations-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        for mutation in MUTATIONS:
            if names and mutation.name not in names:
                continue
            began = monotonic()
            noticed = notices(mutation, tree)
            tell(f"{'ok  ' if noticed else 'MISS'}  {mutation.name}: {mutation.tests} ({monotonic() - began:.0f} s)")
            if not noticed:
                unnoticed.append(mutation.name)
    tell(f"{len(unnoticed)} unnoticed{': ' + ', '.join(unnoticed) if unnoticed else ''}")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
