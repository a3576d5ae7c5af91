"""Lines of statistics, errors, operations, the doctor, tracing and so on that `tests.mutations` breaks."""

from tests.mutation import QUERIES, SCHEDULER, Mutation

CLIENT, PROCESSES = "queue/qworker", "workers/qworkerd"

OBSERVED = [
    Mutation(
        "attempts that the database has not taken are counted", f"{PROCESSES}/outcomes/counting.py",
        "for job in changed if job in known}", "for job in known}",
        "tests/qworkerd/test_counting.py",
    ),
    Mutation(
        "a write of counts that was not confirmed is made anew", f"{SCHEDULER}/statistics.py",
        "        if not checkpoint.pending:\n            checkpoint.prepare",
        "        if True:\n            checkpoint.prepare",
        "tests/qworkerd/test_statistics.py",
    ),
    Mutation(
        "counts that were written are written again", f"{QUERIES}/tallies.sql",
        "         WHERE s.seq < excluded.seq\n", "",
        "tests/qworker/test_tallies.py",
    ),
    Mutation(
        "a wait begins when a delayed job was enqueued", f"{QUERIES}/fragments.sql",
        "date_part('epoch', coalesce({argument}.run_at, {argument}.enqueued_at))",
        "date_part('epoch', {argument}.enqueued_at)",
        "tests/qworker/test_claims.py",
    ),
    Mutation(
        "a manual retry has waited since the job was first due", f"{QUERIES}/admin.sql",
        "           run_at = pg_catalog.clock_timestamp(), node_losses = 0,", "           node_losses = 0,",
        "tests/qworker/test_admin.py",
    ),
    Mutation(
        "a minute is folded before it is over", f"{QUERIES}/tallies.sql",
        "             WHERE f.at < (SELECT date_trunc('minute', clock_timestamp()))\n", "",
        "tests/qworker/test_tallies.py",
    ),
    Mutation(
        "a fold takes a row of the next period", f"{QUERIES}/fragments.sql",
        "s.at >= period.start AND s.at < period.stop", "s.at >= period.start AND s.at <= period.stop",
        "tests/qworker/test_tallies.py",
    ),
    Mutation(
        "histograms that are added keep the larger one", f"{QUERIES}/fragments.sql",
        "sum(p.wait_histogram) AS wait_histogram", "max(p.wait_histogram) AS wait_histogram",
        "tests/qworker/test_tallies.py",
    ),
    Mutation(
        "a resolved group stays resolved", f"{QUERIES}/fragments.sql",
        "g.state = 'resolved' AND excluded.last_seen > g.changed_at", "false AND excluded.last_seen > g.changed_at",
        "tests/qworker/test_error_groups.py",
    ),
    Mutation(
        "a muted group reopens", f"{QUERIES}/fragments.sql",
        "g.state = 'resolved' AND excluded", "g.state <> 'open' AND excluded",
        "tests/qworker/test_error_groups.py",
    ),
    Mutation(
        "a task has any number of groups", f"{QUERIES}/error_groups.sql",
        "u.number + k.groups > %(max_groups)s", "false",
        "tests/qworker/test_error_groups.py",
    ),
    Mutation(
        "an error in two places is one group", f"{CLIENT}/fingerprint.py",
        '(task, kind, frame or "")', '(task, kind, "")',
        "tests/qworker/test_fingerprint.py",
    ),
    Mutation(
        "numbers in messages make groups", f"{CLIENT}/fingerprint.py",
        "        case _:\n            return _NUMBER", "        case _:\n            return found[0]",
        "tests/qworker/test_fingerprint.py",
    ),
    Mutation(
        "the frame of a library names the place of an error", f"{PROCESSES}/outcomes/origin.py",
        "(own or found)[-1]", "found[-1]",
        "tests/qworkerd/test_origin.py",
    ),
    Mutation(
        "a negated term is not negated", f"{CLIENT}/filters/conditions.py",
        '"none_of" if term.negated else "group"', '"group"',
        "tests/qworker/test_search.py",
    ),
    Mutation(
        "the beginning of a fingerprint is one fingerprint", f"{CLIENT}/filters/conditions.py",
        'digits.ljust(DIGITS, "f")', 'digits.ljust(DIGITS, "0")',
        "tests/qworker/test_filters.py",
    ),
    Mutation(
        "a search that no index serves does not stop", f"{CLIENT}/search.py",
        "return elapsed + self._longest > self._time_limit or", "return False and",
        "tests/qworker/test_search.py",
    ),
    Mutation(
        "a search writes", f"{CLIENT}/search.py",
        "            conn.read_only = True\n", "",
        "tests/qworker/test_search.py",
    ),
    Mutation(
        "an operation takes jobs that are newer than itself", f"{QUERIES}/operations.sql",
        "u.upper_id, u.upper_id + 1, %(rate)s", "u.upper_id, u.upper_id + 1000000, %(rate)s",
        "tests/qworker/test_operations.py",
    ),
    Mutation(
        "an operation has no rate", f"{QUERIES}/operations.sql",
        "/ o.rate::float8, 0))", "/ o.rate::float8 * 0, 0))",
        "tests/qworker/test_operations.py",
    ),
    Mutation(
        "two nodes carry out a slice", f"{QUERIES}/operations.sql",
        " LIMIT 1\n   FOR UPDATE SKIP LOCKED;", " LIMIT 1;",
        "tests/qworker/test_operations.py",
    ),
    Mutation(
        "a job that is refused keeps the others of its slice", f"{CLIENT}/slices.py",
        "            if len(ids) > 1:\n", "            if False:\n",
        "tests/qworker/test_operations.py",
    ),
    Mutation(
        "an operation waits for a job that is locked", f"{CLIENT}/slices.py",
        "        if locks:\n", "        if False:\n",
        "tests/qworker/test_operations.py",
    ),
    Mutation(
        "the cancellation of a running job is not recorded", f"{QUERIES}/admin.sql",
        "FROM (SELECT id FROM archived UNION ALL SELECT id FROM requested) AS c}", "FROM archived AS c}",
        "tests/qworker/test_audit.py",
    ),
    Mutation(
        "an action that has changed nothing is recorded", f"{QUERIES}/fragments.sql",
        "    HAVING pg_catalog.count(*) > 0\n", "",
        "tests/qworker/test_audit.py",
    ),
    Mutation(
        "a viewer changes jobs", f"{CLIENT}/rights.py",
        '"job": Sets(worker=_ALL, viewer=_READ,', '"job": Sets(worker=_ALL, viewer=_ALL,',
        "tests/qworker/test_rights_of_statements.py",
    ),
    Mutation(
        "an admin changes what the audit has recorded", f"{CLIENT}/rights.py",
        '"SELECT, INSERT (actor, via, address, note, request, target, jobs, action)"', '"SELECT, INSERT, UPDATE"',
        "tests/qworker/test_rights.py",
    ),
    Mutation(
        "a producer forges the job of a tick", f"{CLIENT}/sql/0001_initial.sql",
        "    IF enqueue.meta ?| ARRAY['cron', 'tick'] THEN", "    IF false THEN",
        "tests/qworker/test_rights.py",
    ),
    Mutation(
        "every node makes the checks", f"{SCHEDULER}/checkup.py",
        "if not own or any(other < own for other in others):", "if not own:",
        "tests/qworkerd/test_checkup.py",
    ),
    Mutation(
        "a finding is reported in each round", f"{PROCESSES}/doctor/changes.py",
        "if key not in self._known),", "if True),",
        "tests/qworkerd/test_checkup.py",
    ),
    Mutation(
        "a check that fails is made in each round", f"{SCHEDULER}/checkup.py",
        "            self._excluded[check.id] = self._round + RETRY_ROUNDS\n", "",
        "tests/qworkerd/test_checkup.py",
    ),
    Mutation(
        "a check may write", f"{PROCESSES}/doctor/examination.py",
        "    database.read_only = True\n", "",
        "tests/qworkerd/test_doctor.py",
    ),
    Mutation(
        "a clock is believed that may be right", f"{PROCESSES}/doctor/nodes.py",
        "if abs(ahead) - uncertain < SKEW:", "if abs(ahead) < SKEW:",
        "tests/qworkerd/test_doctor.py",
    ),
    Mutation(
        "queues that are served later are before a job", f"{CLIENT}/explanation.py",
        'before.update(takewhile(lambda queue: queue != job.queue, node["queues"]))', 'before.update(node["queues"])',
        "tests/qworkerd/test_why.py",
    ),
    Mutation(
        "a locked row goes unnoticed", f"{CLIENT}/explanation.py",
        '    if facts["locker"]:\n', "    if False:\n",
        "tests/qworkerd/test_why.py",
    ),
    Mutation(
        "a node that is silent runs its job", f"{CLIENT}/explanation.py",
        '    if node["silence"] > min(SILENCE, node["lease"]):\n', "    if False:\n",
        "tests/qworkerd/test_why.py",
    ),
    Mutation(
        "a node whose lease has expired is alive", f"{CLIENT}/heartbeats.py",
        "return self.silence < self.lease", "return True",
        "tests/qworkerd/test_ping.py",
    ),
    Mutation(
        "a host whose name begins the same is this host", f"{QUERIES}/heartbeats.sql",
        "left(n.name, length(%(name)s::text) + 1) = %(name)s::text || ':'",
        "left(n.name, length(%(name)s::text)) = %(name)s::text",
        "tests/qworkerd/test_ping.py",
    ),
    Mutation(
        "series with the same labels are exported twice", f"{PROCESSES}/exporter/collector.py",
        "list(map(add, series[names], cells)) if names in series else cells", "cells",
        "tests/qworkerd/test_exporter.py",
    ),
    Mutation(
        "a node without a lease is ready", f"{PROCESSES}/exporter/server.py",
        "if not header.node or header.lease_until <= boottime():", "if False:",
        "tests/qworkerd/test_exporter.py",
    ),
    Mutation(
        "metrics of the application hide ours", f"{PROCESSES}/exporter/server.py",
        "        except Exception as error:  # noqa: BLE001 - files and names",
        "        except KeyboardInterrupt as error:  # noqa: BLE001 - files and names",
        "tests/qworkerd/test_exporter.py",
    ),
    Mutation(
        "an old job continues the trace of its origin", f"{CLIENT}/contrib/tracing/extension.py",
        "        if age >= self._max_age:\n", "        if False:\n",
        "tests/contrib/tracing/test_spans.py",
    ),
    Mutation(
        "a retry is not linked to the attempt that failed", f"{CLIENT}/contrib/tracing/extension.py",
        "        if origin.failed is not None:\n", "        if False:\n",
        "tests/contrib/tracing/test_node.py",
    ),
    Mutation(
        "the spans of a worker that ends are lost", f"{CLIENT}/contrib/tracing/extension.py",
        "        app.on_worker_stop(self._flush)\n", "",
        "tests/contrib/tracing/test_node.py",
    ),
    Mutation(
        "every failed attempt is an event", f"{CLIENT}/contrib/sentry/extension.py",
        "        if not (final or died or self._retries):\n", "        if False:\n",
        "tests/contrib/sentry/test_node.py",
    ),
    Mutation(
        "an event has breadcrumbs from before its job", f"{CLIENT}/contrib/sentry/extension.py",
        "            scope.clear_breadcrumbs()\n", "",
        "tests/contrib/sentry/test_reports.py",
    ),
    Mutation(
        "Sentry groups by its own rules", f"{CLIENT}/contrib/sentry/extension.py",
        "                found.fingerprint = [str(fingerprint)]\n", "                pass\n",
        "tests/contrib/sentry/test_node.py",
    ),
    Mutation(
        "an attempt has the log lines of the one before", f"{PROCESSES}/log/job_lines.py",
        "            self._ring.begin(job.id, job.started)\n", "",
        "tests/qworkerd/test_job_lines.py",
    ),
    Mutation(
        "a thread that was left behind adds lines to the next job", f"{PROCESSES}/log/job_lines.py",
        "                return  # the job has ended, or a thread",
        "                pass  # the job has ended, or a thread",
        "tests/qworkerd/test_job_lines.py",
    ),
    Mutation(
        "a process that does not write its stacks is killed by the request", f"{SCHEDULER}/stack_dumps.py",
        " or not catches(pid, DUMP_SIGNAL)", "",
        "tests/lifecycle/test_job_stack.py",
    ),
    Mutation(
        "the stacks of another job are an answer", f"{SCHEDULER}/stack_dumps.py",
        "if text and running is not None and running.id == job:", "if text:",
        "tests/qworkerd/test_stack_dumps.py",
    ),
    Mutation(
        "a request for stacks stays in the table", f"{CLIENT}/stacks.py",
        '                self._count(database, "withdraw", id=request)', "                pass",
        "tests/lifecycle/test_job_stack.py",
    ),
]  # fmt: skip
