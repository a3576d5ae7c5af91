-- Work for the whole cluster that any node may do: due jobs, expiry, retention, unique keys, rows that no statement writes.
-- Each statement may run on all nodes at the same time; only one of them takes effect.

-- name: promote
-- Makes due jobs available, oldest first, except those in `excluded`; each gets its seq now. Returns the queues to wake.
UPDATE {schema}.job AS j
   SET state = 'available', seq = nextval('{schema}.job_seq')
 WHERE j.id = ANY (ARRAY (
        {due: %(limit)s::bigint}))
RETURNING j.queue;

-- name: first_due
-- The job that `promote` would update first.
{due: 1};

-- name: expire
-- Cancels jobs that have expired before their first attempt, and jobs that were released after their cancellation was
-- requested: up to `limit`, except those in `excluded`.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY ({expired: %(limit)s::bigint}[1:%(limit)s::integer])
    RETURNING *
), freed AS (
    {free_keys: SELECT id FROM done WHERE holds_key}
)
{archive: d.crashes, 'cancelled', NULL, NULL,
       {schema}.append_error(d.errors, jsonb_build_object('at', t.finished_at, 'attempt', d.attempt) || CASE
           WHEN d.cancel_requested_at IS NULL
           THEN jsonb_build_object('type', 'Expired', 'message', 'not started before ' || d.expires_at)
           ELSE jsonb_build_object('type', 'Cancelled', 'message', 'cancelled at ' || d.cancel_requested_at) END)},
       queue, task, errors -> -1 ->> 'type' = 'Expired' AS expired;

-- name: first_expired
-- The job that `expire` would end first.
SELECT {expired: 1}[1];

-- name: discard_failed
-- Moves up to `limit` jobs that failed more than `keep` seconds ago to the history, except those in `excluded`.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            {old_failures: %(limit)s::bigint}))
    RETURNING *
)
{archive: d.crashes, 'discarded', NULL, NULL, d.errors}, queue, task;

-- name: first_discarded
-- The job that `discard_failed` would move first.
{old_failures: 1};

-- name: expired_days
-- The days of both rings, of 32 days each, that are older than their retention and not empty. A size needs no lock on the days
-- that are in use. Days are those of UTC, also where the day before began 23 or 25 hours earlier.
SELECT r.name AS ring, d.day
  FROM (VALUES ('job_history', %(history_days)s::int), ('job_log', %(log_days)s::int)) AS r (name, days)
 CROSS JOIN generate_series(r.days + 1, 30) AS back
 CROSS JOIN LATERAL (
        SELECT ({schema}.history_day(coalesce(to_timestamp(%(at)s::float8), clock_timestamp())) + 32 - back) %% 32 AS day) AS d
 WHERE pg_relation_size(to_regclass('{schema}.' || r.name || to_char(d.day, 'FM"_"00'))) > 0;

-- name: truncate_day
SELECT {schema}.truncate_day(%(ring)s, %(day)s::int);

-- name: delete_expired_keys
-- Deletes keys whose period has ended.
DELETE FROM {schema}.unique_key {limited: unique_key AS o
 WHERE o.expires_at <= (SELECT clock_timestamp())};

-- name: delete_unheld_keys
-- Deletes keys whose jobs have ended: a job's end skips a key that another session has locked. Checks up to 1,000 keys of
-- jobs above `after`; returns the highest of these jobs, NULL if there are none. A key that is taken over meanwhile names
-- another job by then, and is kept.
WITH checked AS MATERIALIZED (
    SELECT k.job_id FROM {schema}.unique_key AS k
     WHERE k.expires_at IS NULL AND k.job_id > %(after)s
     ORDER BY k.job_id
     LIMIT 1000
), unheld AS MATERIALIZED (
    SELECT s.job_id FROM checked AS s
      LEFT JOIN LATERAL (SELECT true AS holds FROM {schema}.job AS j WHERE j.id = s.job_id AND j.holds_key LIMIT 1) AS job
        ON true -- planned on an empty table, an anti-join would compare each key with every job
     WHERE job.holds IS NULL
), freed AS (
    {free_keys: SELECT job_id FROM unheld}
)
SELECT max(job_id) FROM checked;

-- name: count_keys
-- The keys that are held while their jobs are unfinished.
SELECT count(*) FROM {schema}.unique_key WHERE expires_at IS NULL;

-- name: needs_repair
-- Whether one of the statements below, `restart_unclaimed` or `old_claims` would find a row.
SELECT EXISTS (
    SELECT FROM {schema}.job AS l WHERE l.state = 'running' AND (l.node IS NULL OR l.token IS NULL)
) OR EXISTS (
    SELECT FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) AS w (queue, priority)
     CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS r
             WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq <= 0
             ORDER BY r.seq LIMIT 1) AS low
) OR (
    SELECT j.id FROM {schema}.job AS j
     WHERE j.state NOT IN ('scheduled', 'available', 'running') AND j.failed_at IS NULL
     ORDER BY j.failed_at -- see end_invalid; EXISTS would drop it
     LIMIT 1
) IS NOT NULL OR EXISTS (
    SELECT FROM {schema}.job AS o
     WHERE o.state = 'running' AND o.node = %(node)s AND o.token IS NOT NULL
       AND (o.claimed_at IS NULL OR o.claimed_at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8))));

-- name: renumber
-- Gives a new seq to available jobs whose seq is 0 or below: claims start above 0.
UPDATE {schema}.job AS j
   SET seq = nextval('{schema}.job_seq')
 WHERE j.id = ANY (ARRAY (
        SELECT low.id
          FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) AS w (queue, priority)
         CROSS JOIN LATERAL (
                SELECT r.id FROM {schema}.job AS r
                 WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq <= 0
                 ORDER BY r.seq
                 LIMIT 1000
                   FOR UPDATE SKIP LOCKED) AS low))
RETURNING j.id;

-- name: end_invalid
-- Moves jobs to the history if no job of this table has their state: it is one of the history, or not in use yet.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.state NOT IN ('scheduled', 'available', 'running') AND j.state <> 'failed' AND j.failed_at IS NULL
             ORDER BY j.failed_at -- has the planner use the index that begins with it
             LIMIT 1000
               FOR UPDATE SKIP LOCKED))
    RETURNING *
), freed AS (
    {free_keys: SELECT id FROM done WHERE holds_key}
)
{archive: d.crashes, 'discarded', NULL, NULL,
       {schema}.append_error(d.errors, jsonb_build_object(
           'at', t.finished_at, 'attempt', d.attempt, 'type', 'InvalidState',
           'message', format('the state %%s was written to the table of unfinished jobs', d.state)))};

-- name: date_failures
-- Sets the time of failed jobs that have none: retention would never delete them.
UPDATE {schema}.job AS j
   SET failed_at = clock_timestamp()
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.state = 'failed' AND l.failed_at IS NULL
         ORDER BY l.failed_at -- see end_invalid
         LIMIT 1000
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: flush
-- Deletes everything that belongs to jobs, between the tests of an application; nodes that run stay registered. A table
-- that was never written to has no pages: truncating it costs more than looking. The schema may hold tables of the
-- application too: only ours are named. All sessions lock them in one order.
DO $block$
DECLARE
    used text;
BEGIN
    SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid) INTO used
      FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r'
       AND (c.relname IN ('job', 'unique_key', 'queue', 'cron', 'audit', 'audit_key', 'error_event', 'error_group', 'error_stat',
                           'stack_request', 'live_log',
                         'series', 'stat', 'stat_total', 'stat_queue', 'stat_flush', 'depth')
            OR c.relname ~ '^job_(history|log)_[0-9][0-9]$')
       AND pg_relation_size(c.oid) > 0;
    IF used IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || used;
    END IF;
END
$block$;
