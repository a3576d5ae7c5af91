-- Parts that several statements share. A statement contains {name}, or {name: argument} if the part has an {argument}.
-- They also run on callers' connections: all functions and operators are qualified as in enqueue.sql.

-- name: claimed_job
-- A job that still belongs to the claim, locked; no row if another session has locked it.
SELECT {argument} FROM {schema}.job AS l
         WHERE l.id = %(id)s::bigint AND l.token = %(token)s::bigint
           FOR UPDATE SKIP LOCKED

-- name: unless_cancelled
-- CTEs of a statement that changes a job whose cancellation was not requested: `locked` is the job of the claim. If it is
-- to be cancelled, `done` has its row.
locked AS MATERIALIZED (
        {claimed_job: l.cancel_requested_at IS NOT NULL AS cancelled}
), done AS (
    DELETE FROM {schema}.job WHERE id = %(id)s AND EXISTS (SELECT FROM locked WHERE cancelled) RETURNING *
)

-- name: archive
-- Moves the rows of the CTE `done` to the history. The argument is the values that depend on how the job ended: crashes,
-- state, duration, result and errors.
INSERT INTO {schema}.job_history (
    id, token, node, run_at, enqueued_at, claimed_at, finished_at, ring_day, attempt, priority, node_losses, is_hook, queue, task, args,
    tags, meta, crashes, state, duration, result, errors)
SELECT d.id, d.token, d.node, d.run_at, d.enqueued_at, d.claimed_at, t.finished_at, t.ring_day, d.attempt,
       d.priority, d.node_losses, d.is_hook, d.queue, d.task, d.args, d.tags, d.meta,
       {argument}
  FROM done AS d
 CROSS JOIN (
        SELECT now.at AS finished_at, {schema}.history_day(now.at) AS ring_day
          FROM (SELECT pg_catalog.clock_timestamp() AS at) AS now
        OFFSET 0 -- computed once, not for each job
       ) AS t
RETURNING id

-- name: clock
SELECT coalesce(pg_catalog.to_timestamp(%(at)s::float8), pg_catalog.clock_timestamp()) AS now

-- name: start
-- A job's start time, and the time of the CTE `clock`.
(SELECT clock.now, coalesce(pg_catalog.to_timestamp(%(run_at)s::float8),
                            clock.now + pg_catalog.make_interval(secs => %(delay)s::float8)) AS start
           FROM clock)

-- name: timed_columns
-- What is stored for a job that may have a start time or an expiry time; `timed_values` has the values, from `start` AS t
-- and the arguments given to it.
task, args, queue, priority, overrides, tags, meta, state, run_at, expires_at

-- name: timed_values
%(task)s, {argument}::jsonb, %(queue)s, %(priority)s, %(overrides)s::jsonb, %(tags)s::text[], %(meta)s::jsonb,
           CASE WHEN t.start > t.now THEN 'scheduled'::{schema}.job_state ELSE 'available' END,
           CASE WHEN t.start > t.now THEN t.start END,
           coalesce(pg_catalog.to_timestamp(%(expires_at)s::float8),
                    t.now + pg_catalog.make_interval(secs => %(expires)s::float8))

-- name: enqueued
-- What enqueueing returns of the job of the CTE `enqueued`; wakes idle nodes.
SELECT e.id, e.state::text, extract(epoch FROM e.enqueued_at)::float8, extract(epoch FROM e.run_at)::float8,
       (SELECT {schema}.wake(ARRAY[e.queue]) WHERE e.state OPERATOR(pg_catalog.=) 'available')
  FROM enqueued AS e

-- name: take_key
-- CTEs that take unique keys, an array, at the time of the CTE `clock`. `taken` has the ids of the new jobs for the keys that
-- were free; `found` has the jobs that held keys. A key is taken over if its job is gone or no longer has the flag that it
-- holds a key. The row of a held key is never locked: the acknowledgement of its job deletes it, and must not wait for the
-- caller's transaction. If job_id has changed when the row is locked, a concurrent session has taken the key over. Keys are
-- taken over and inserted in their order, so that two statements do not wait for each other.
found AS MATERIALIZED (
    SELECT k.key, k.job_id, k.row_id,
           CASE WHEN k.expires_at IS NULL
                THEN (SELECT j.holds_key FROM {schema}.job AS j WHERE j.id = k.job_id) IS NOT TRUE -- EXISTS may read all jobs
                ELSE k.expires_at <= clock.now END AS free
      FROM clock
     CROSS JOIN (SELECT pg_catalog.unnest({argument}) AS key) AS w
     CROSS JOIN LATERAL (
            -- Each key is looked up in the index. With an array of keys, PostgreSQL before 17 may read all keys of the task.
            SELECT u.key, u.job_id, u.expires_at, u.ctid AS row_id
              FROM {schema}.unique_key AS u
             WHERE u.task = %(task)s AND u.key = w.key
             LIMIT 1
           ) AS k
     ORDER BY w.key
), taken_over AS (
    UPDATE {schema}.unique_key AS k
       SET job_id = pg_catalog.nextval('{schema}.job_id_seq'::regclass),
           expires_at = clock.now + pg_catalog.make_interval(secs => %(period)s::float8)
      FROM clock, found
     WHERE found.free AND k.ctid = found.row_id AND k.job_id = found.job_id
    RETURNING k.key, k.job_id
), inserted AS (
    INSERT INTO {schema}.unique_key (task, key, job_id, expires_at)
    SELECT %(task)s, w.key, pg_catalog.nextval('{schema}.job_id_seq'::regclass),
           clock.now + pg_catalog.make_interval(secs => %(period)s::float8)
      FROM clock, (SELECT pg_catalog.unnest({argument}) AS key) AS w
     -- A key that was free is inserted if it was not taken over: another session has deleted it meanwhile.
     WHERE w.key IS NOT NULL AND NOT EXISTS (SELECT FROM found WHERE found.key = w.key AND NOT found.free)
       AND NOT EXISTS (SELECT FROM taken_over WHERE taken_over.key = w.key)
     ORDER BY w.key
        ON CONFLICT DO NOTHING
    RETURNING key, job_id
), taken AS (
    SELECT key, job_id FROM taken_over UNION ALL SELECT key, job_id FROM inserted
)

-- name: tick_job
-- CTEs that enqueue the job of a schedule at the time of the CTE `clock`, if it has a row, with its key if the task has one.
{take_key: ARRAY[%(key)s::text]}, numbered AS (
    SELECT taken.job_id FROM taken
     UNION ALL
    SELECT nextval('{schema}.job_id_seq'::regclass) FROM {argument} WHERE %(key)s::text IS NULL
), enqueued AS (
    INSERT INTO {schema}.job ({timed_columns}, id, holds_key)
    SELECT {timed_values: %(args)s}, numbered.job_id, %(key)s::text IS NOT NULL AND %(period)s::float8 IS NULL
      FROM numbered, {start} AS t
    RETURNING id, state, queue
)

-- name: free_keys
-- Frees the unique keys of jobs that have ended or failed, except keys taken for a period. A key that another session has
-- locked is skipped: it no longer counts, and `delete_unheld_keys` deletes it.
DELETE FROM {schema}.unique_key
 WHERE ctid = ANY (ARRAY (
        SELECT k.ctid FROM {schema}.unique_key AS k
         WHERE k.job_id = ANY (ARRAY ({argument})) AND k.expires_at IS NULL
           FOR UPDATE SKIP LOCKED))

-- name: audit
-- Records an action in the statement that takes it, unless nothing was changed: who, and what was done to what. The argument
-- is the target, the number of jobs and the action, FROM the rows that were changed.
INSERT INTO {schema}.audit (actor, via, address, note, request, target, jobs, action)
    SELECT %(actor)s::text, %(via)s::text, %(address)s::text, %(note)s::text, %(request)s::text, {argument}
    HAVING pg_catalog.count(*) > 0

-- name: audit_jobs
-- Records an action on jobs; the argument is the action, FROM the jobs that were changed AS c.
{audit: pg_catalog.jsonb_build_object('jobs', pg_catalog.jsonb_agg(c.id ORDER BY c.id)), pg_catalog.count(*)::integer, {argument}}

-- name: node_audit
-- Records an action on nodes by their names; the argument is the action, FROM the rows with their ids.
{audit: jsonb_build_object('nodes', jsonb_agg(n.name ORDER BY n.id), 'node_ids', jsonb_agg(n.id ORDER BY n.id)), NULL, {argument} AS c
          JOIN {schema}.node AS n ON n.id = c.node}

-- name: audit_columns
-- The fields of qworker.audit.AuditEntry; `at` in seconds since 1970.
a.id, extract(epoch FROM a.at)::float8 AS at, a.actor, a.role, a.via, a.address, a.action, a.target::text, a.jobs, a.note

-- name: audit_bound
-- A CTE with the period of the entries that are wanted: older than the position (at, id), and not before `since`. Entries are in
-- the order of `at`, and those of the same time in that of `id`. If the entry `below` is gone, the one before it tells its position.
bound AS MATERIALIZED (
    SELECT newest.at, newest.id, coalesce(pg_catalog.to_timestamp(%(since)s::float8), '-infinity') AS since
      FROM (SELECT coalesce((SELECT p.at FROM {schema}.audit AS p WHERE p.id <= %(below)s::bigint ORDER BY p.id DESC LIMIT 1),
                            CASE WHEN %(below)s::bigint IS NULL THEN 'infinity'::timestamptz ELSE '-infinity' END) AS at,
                   coalesce(%(below)s::bigint, 9223372036854775807) AS id
             UNION ALL
            SELECT pg_catalog.to_timestamp(%(until)s::float8), -1 WHERE %(until)s::float8 IS NOT NULL) AS newest
     ORDER BY newest.at, newest.id
     LIMIT 1
)

-- name: audit_within
-- Whether a row is in the period of `audit_bound`. A subquery that is read once is a bound for a scan of the index.
({argument}.at, {argument}.id) < ((SELECT bound.at FROM bound), (SELECT bound.id FROM bound))
           AND {argument}.at >= (SELECT bound.since FROM bound)

-- name: audit_keyed
e.key = (SELECT given.key FROM given) AND e.other = (SELECT given.other FROM given)

-- name: audit_actions
-- CTEs with the actions of rows AS e that are wanted. There are a few dozen: each is found by one look into an index.
action (name) AS (
    (SELECT e.action::text FROM {schema}.{argument} ORDER BY e.action LIMIT 1)
     UNION ALL
    SELECT (SELECT e.action::text FROM {schema}.{argument} AND e.action > action.name ORDER BY e.action LIMIT 1)
      FROM action
     WHERE action.name IS NOT NULL
), wanted AS MATERIALIZED (
    SELECT c.action FROM (SELECT action.name AS action FROM action) AS c WHERE c.action IS NOT NULL AND {audit_wanted: c}
)

-- name: audit_wanted
(%(action)s::text IS NULL OR {argument}.action = %(action)s OR pg_catalog.starts_with({argument}.action, %(action)s || '.'))

-- name: audit_matching
((%(rest)s::jsonb IS NULL OR {argument}.target @> %(rest)s) AND (%(actor)s::text IS NULL OR {argument}.actor = %(actor)s))

-- name: attempt
-- The attempt that an error ended: when it was claimed, and by which node.
pg_catalog.jsonb_build_object('claimed_at', {argument}.claimed_at, 'node', {argument}.node)

-- name: failed_attempt
-- Stores the error of an attempt after which the job runs again.
fingerprint = {schema}.fingerprint(j.task, %(error)s::jsonb),
           errors = {schema}.append_error(j.errors, %(error)s::jsonb || {attempt: j})

-- name: count_error
-- Notes the failed attempts of the jobs of a CTE, with their fingerprints, to be counted by group.
INSERT INTO {schema}.error_event (fingerprint, job, task, queue, error)
    SELECT f.fingerprint, f.id, f.task, f.queue,
           coalesce(%(error)s::jsonb -> 'group', jsonb_build_object('type', %(error)s::jsonb -> 'type'))
      FROM {argument} AS f
     WHERE f.fingerprint IS NOT NULL

-- name: without_message
-- A fingerprint without the bits that depend on the message: see qworker.fingerprint.
({argument} >> 24 << 24)

-- name: reopens
g.state = 'resolved' AND excluded.last_seen > g.changed_at

-- name: group_columns
-- The fields of qworker.error_groups.ErrorGroup; times are seconds since 1970.
g.fingerprint, g.task, g.type, g.message, g.frame, g.state, g.count,
       extract(epoch FROM g.first_seen)::float8 AS first_seen, extract(epoch FROM g.last_seen)::float8 AS last_seen,
       g.first_release, g.last_release, g.queues, g.first_job, g.samples,
       extract(epoch FROM g.changed_at)::float8 AS changed_at, g.changed_by,
       extract(epoch FROM g.reopened_at)::float8 AS reopened_at, g.reopened_release

-- name: hook_id
-- An object with the id of the failure hook if one is to be enqueued. It is stored with the error of the job. A hook whose
-- id is in no error was not enqueued by a failure, and is not run.
CASE WHEN {argument} THEN pg_catalog.jsonb_build_object('hook', pg_catalog.nextval('{schema}.job_id_seq'::regclass)) ELSE '{}' END

-- name: enqueue_hooks
-- Enqueues the failure hooks of the jobs of a CTE.
INSERT INTO {schema}.job (id, queue, task, priority, args, is_hook)
SELECT f.hook, f.queue, f.task, f.priority, pg_catalog.jsonb_build_object('job', f.id), true
  FROM {argument} AS f
 WHERE f.state = 'failed' AND f.hook IS NOT NULL
RETURNING id, queue

-- name: begin_claim
-- `attempt` is clamped because a row edited by hand must not overflow: the error would undo the whole claim, and the queue
-- would stop.
state = 'running', attempt = least(greatest(j.attempt, 0), 1000000000) + 1, token = %(token)s, node = %(node)s,
       claimed_at = clock_timestamp(), progress = NULL

-- name: end_claim
token = NULL, node = NULL

-- name: undo_claim
-- The job has not run, or is to run again.
{end_claim}, claimed_at = NULL

-- name: uncounted
attempt = greatest(j.attempt, 1) - 1

-- name: ready
-- The jobs that can be claimed: in the given order of queues, then by priority, lowest first, then by seq. Expired jobs are
-- skipped; `expire` ends them.
  FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(cursors)s::bigint[]) AS w (queue, priority, cursor)
 CROSS JOIN LATERAL (
        SELECT r.id
          FROM {schema}.job AS r
         WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq > w.cursor
           AND (r.expires_at IS NULL OR r.attempt > 0 OR r.expires_at > clock_timestamp())
           {argument}
         ORDER BY r.seq
         LIMIT %(limit)s
           FOR UPDATE SKIP LOCKED
       ) AS ready
 LIMIT %(limit)s

-- name: claimed_columns
-- The fields of qworker.claims.ClaimedJob.
j.id, j.seq, j.priority, j.queue, j.task, j.args::text, j.attempt, j.crashes::int + j.node_losses AS crash_count, j.is_hook,
       date_part('epoch', j.enqueued_at) AS enqueued_at, j.overrides::text, j.unknown_task_count, {waited: j} AS waited

-- name: waited
-- How long a claimed job has waited since it could start (seconds). The times are not subtracted from one another: before
-- PostgreSQL 17 this fails if one of them is infinite.
date_part('epoch', {argument}.claimed_at) - date_part('epoch', coalesce({argument}.run_at, {argument}.enqueued_at))

-- name: seconds_since
-- How long ago a time of a row was. Like `waited`, this does not subtract times.
extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM {argument})::float8

-- name: job_columns
-- The fields of qworker.job.Job; times are seconds since 1970.
j.id, j.state, j.queue, j.priority, j.task, j.args::text, j.attempt, j.crashes, j.node_losses,
       extract(epoch FROM j.enqueued_at)::float8 AS enqueued_at, extract(epoch FROM j.run_at)::float8 AS run_at,
       extract(epoch FROM j.claimed_at)::float8 AS claimed_at, extract(epoch FROM j.finished_at)::float8 AS finished_at,
       j.duration, j.result::text, j.progress::text, j.errors::text, j.tags,
       extract(epoch FROM j.cancel_requested_at)::float8 AS cancel_requested_at, j.is_hook AS hook, j.meta::text,
       j.node

-- name: pause_columns
-- The arguments of qworker.queues.pause_of.
q.name AS queue, extract(epoch FROM q.paused_at)::float8 AS paused_at, q.paused_by, q.pause_reason

-- name: operation_columns
-- The fields of qworker.operations.Operation; times are seconds since 1970.
o.id, o.action, o.filter, o.options::text, o.upper_id, o.below, o.rate, o.expected, o.done, o.skipped, o.failed, o.state,
       o.actor, o.address, o.note, o.error, extract(epoch FROM o.created_at)::float8 AS created_at,
       extract(epoch FROM o.finished_at)::float8 AS finished_at

-- name: matching
-- The jobs that a user searches for.
(%(queue)s::text IS NULL OR {argument}.queue = %(queue)s)
                AND (%(task)s::text IS NULL OR {argument}.task = %(task)s)
                AND (%(tag)s::text IS NULL OR %(tag)s = ANY ({argument}.tags))
                AND (%(below)s::bigint IS NULL OR {argument}.id < %(below)s)

-- name: due
-- Scheduled jobs whose time has come, oldest first.
SELECT d.id FROM {schema}.job AS d
 WHERE d.state = 'scheduled'
   AND d.run_at >= to_timestamp(%(due_from)s::float8)
   AND d.run_at <= (SELECT coalesce(to_timestamp(%(at)s::float8), clock_timestamp()))
   AND d.id <> ALL (%(excluded)s::bigint[])
 ORDER BY d.run_at
 LIMIT {argument}
   FOR UPDATE SKIP LOCKED

-- name: expired
-- Jobs that have expired before their first attempt, and jobs that were released after their cancellation was requested.
(ARRAY (
        SELECT j.id FROM {schema}.job AS j
         WHERE j.expires_at <= (SELECT coalesce(to_timestamp(%(at)s::float8), clock_timestamp()))
           AND j.state IN ('available', 'scheduled') AND j.attempt = 0
           AND j.id <> ALL (%(excluded)s::bigint[])
         ORDER BY j.expires_at
         LIMIT {argument}
           FOR UPDATE SKIP LOCKED) || ARRAY (
        SELECT j.id FROM {schema}.job AS j
         WHERE j.cancel_requested_at IS NOT NULL AND j.state IN ('available', 'scheduled')
           AND j.id <> ALL (%(excluded)s::bigint[])
         ORDER BY j.cancel_requested_at
         LIMIT {argument}
           FOR UPDATE SKIP LOCKED))

-- name: old_failures
-- Jobs that failed more than `keep` seconds ago.
SELECT j.id FROM {schema}.job AS j
 WHERE j.state NOT IN ('scheduled', 'available', 'running')
   AND j.failed_at < (SELECT clock_timestamp() - make_interval(secs => %(keep)s::float8))
   AND j.id <> ALL (%(excluded)s::bigint[])
 ORDER BY j.failed_at
 LIMIT {argument}
   FOR UPDATE SKIP LOCKED

-- name: lost
-- The running jobs of a dead node.
SELECT l.id FROM {schema}.job AS l
 WHERE l.state = 'running' AND l.node = %(dead)s::bigint AND l.id <> ALL (%(excluded)s::bigint[])
 ORDER BY l.claimed_at
 LIMIT {argument}
   FOR UPDATE SKIP LOCKED

-- name: heartbeat
-- Renews a lease. The row is found by ctid, because the index on `id` visits every version kept by an old snapshot, one for
-- each second.
UPDATE {schema}.node
   SET heartbeat = CASE WHEN heartbeat < 1::bigint << 62 THEN heartbeat + 1 ELSE 0 END, state = %(state)s::jsonb,
       released_seq = %(released_seq)s, heartbeat_at = clock_timestamp()
 WHERE ctid = %(ctid)s::tid AND id = %(node)s
RETURNING ctid::text

-- name: lease
-- The lease of a node (seconds), or a usable one if the row was edited by hand.
CASE WHEN n.lease_seconds > 0 AND n.lease_seconds <= 86400 THEN greatest(n.lease_seconds, 5) ELSE 60 END

-- name: live
-- Whether a row of `node` has a lease that has not ended, by the database's clock.
extract(epoch FROM {argument}.heartbeat_at)::float8 + {argument}.lease_seconds
    > extract(epoch FROM pg_catalog.clock_timestamp())::float8

-- name: working
-- Whether the workers of a row of `node` claim jobs: its lease has not ended, and it is not paused.
{live: {argument}} AND NOT EXISTS (SELECT FROM {schema}.paused_node AS u WHERE u.node = {argument}.id)

-- name: limited
-- The condition of a deletion of up to 1,000 rows, except those that another session has locked: several nodes may delete
-- at the same time. The argument is the table AS o, and the condition on its rows.
WHERE ctid = ANY (ARRAY (
        SELECT o.ctid FROM {schema}.{argument} LIMIT 1000 FOR UPDATE SKIP LOCKED))

-- name: schema_bytes
-- The size of our tables with their indexes.
(SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
  WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r')

-- name: json_number
-- A number in JSON that any client may have written; NULL if it is not one.
CASE WHEN jsonb_typeof({argument}) = 'number'
     THEN least(greatest(({argument})::numeric, -1000000000), 1000000000)::float8 END

-- name: counters
-- The columns of `stat` that count, in the order of qworkerd.shared.tally.Counter.
succeeded, retried, raised, timed_out, oom, signalled, exited, stalled, lease_lost, supervisor_lost,
       node_lost, interrupted, snoozed, unknown_task, cancelled_attempts, failed, cancelled, discarded, expired,
       released

-- name: flushed_counts
-- The contents of an object in `stat_flush`; what is missing is 0.
series integer, succeeded integer, retried integer, raised integer, timed_out integer, oom integer, signalled integer,
       exited integer, stalled integer, lease_lost integer, supervisor_lost integer, node_lost integer,
       interrupted integer, snoozed integer, unknown_task integer, cancelled_attempts integer, failed integer,
       cancelled integer, discarded integer, expired integer, released integer,
       run_seconds float8, wait_seconds float8, run_bucket smallint[], run_count integer[], wait_bucket smallint[], wait_count integer[]

-- name: added_counts
-- A CTE that adds the rows of the CTE `part` by period and by the column that is the argument.
counted AS (
    SELECT p.at, p.{argument}, {sums} FROM part AS p GROUP BY p.at, p.{argument}
)

-- name: kept_counts
-- The columns of `stat` that hold counts.
{counters}, run_seconds, wait_seconds, run_histogram, wait_histogram

-- name: moved_counts
-- CTEs that delete the rows of the oldest period, if it ended more than `age` seconds ago, for the next wider period. The
-- argument is the table.
WITH oldest AS (
    SELECT s.at FROM {schema}.{argument} AS s WHERE s.width = %(width)s ORDER BY s.at LIMIT 1
), period AS MATERIALIZED (
    SELECT p.start, p.start + make_interval(mins => %(wider)s::integer) AS stop
      FROM oldest
     CROSS JOIN LATERAL (SELECT date_bin(make_interval(mins => %(wider)s::integer), oldest.at, '2000-01-01 00:00:00+00') AS start) AS p
     WHERE p.start + make_interval(mins => %(wider)s::integer, secs => %(age)s::float8) < clock_timestamp()
), gone AS (
    DELETE FROM {schema}.{argument}
     WHERE ctid = ANY (ARRAY (
            SELECT s.ctid
              FROM period
             CROSS JOIN LATERAL (
                    SELECT s.ctid FROM {schema}.{argument} AS s
                     WHERE s.width = %(width)s AND s.at >= period.start AND s.at < period.stop
                     LIMIT %(limit)s
                       FOR UPDATE SKIP LOCKED) AS s))
    RETURNING *
)

-- name: sums
-- The sums of the counts and histograms of rows `p`.
sum(p.succeeded)::bigint AS succeeded, sum(p.retried)::bigint AS retried, sum(p.raised)::bigint AS raised,
       sum(p.timed_out)::bigint AS timed_out, sum(p.oom)::bigint AS oom, sum(p.signalled)::bigint AS signalled,
       sum(p.exited)::bigint AS exited, sum(p.stalled)::bigint AS stalled, sum(p.lease_lost)::bigint AS lease_lost,
       sum(p.supervisor_lost)::bigint AS supervisor_lost, sum(p.node_lost)::bigint AS node_lost,
       sum(p.interrupted)::bigint AS interrupted, sum(p.snoozed)::bigint AS snoozed,
       sum(p.unknown_task)::bigint AS unknown_task, sum(p.cancelled_attempts)::bigint AS cancelled_attempts,
       sum(p.failed)::bigint AS failed, sum(p.cancelled)::bigint AS cancelled, sum(p.discarded)::bigint AS discarded,
       sum(p.expired)::bigint AS expired, sum(p.released)::bigint AS released,
       sum(p.run_seconds) AS run_seconds, sum(p.wait_seconds) AS wait_seconds,
       sum(p.run_histogram) AS run_histogram, sum(p.wait_histogram) AS wait_histogram

-- name: attempts
-- The attempts whose run times were counted in grouped rows of `stat`.
(SELECT sum(b.number) FROM {schema}.buckets(sum({argument}.run_histogram)) AS b)

-- name: earlier_mean_run
-- The mean run time of a queue in the last day, for one of which no attempt has ended lately. No inner column may be called
-- `queue`, which is what the argument is called where it is used.
(SELECT sum(q.run_seconds) / nullif(sum(coalesce(q.succeeded, 0) + coalesce(q.retried, 0) + coalesce(q.raised, 0) + coalesce(q.timed_out, 0)), 0)::float8
   FROM (SELECT s.queue AS name, s.at, s.run_seconds, s.succeeded, s.retried, s.raised, s.timed_out FROM {schema}.stat_queue AS s) AS q
  WHERE q.name = {argument} AND q.at >= (SELECT clock_timestamp() - interval '1 day'))

-- name: statistics_columns
-- The arguments of qworker.counts.counts_of.
{counters}, run_seconds, wait_seconds, run_histogram::text, wait_histogram::text