-- Statements that read jobs, queues and nodes, and cancel, retry or discard jobs.
-- They also run on callers' connections. All functions are therefore qualified, and so are operators that pg_catalog does
-- not define for exactly these types (see enqueue.sql).

-- name: show
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = %(id)s
 -- After a restore an id may have been assigned twice. Its newest job is the one that is not in the history.
 ORDER BY j.state IN ('completed', 'cancelled', 'discarded'), j.finished_at DESC
 LIMIT 1;

-- name: show_many
-- Of jobs with the same id the last one in this order counts: see `show`.
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (%(ids)s::bigint[])
 ORDER BY j.state NOT IN ('completed', 'cancelled', 'discarded'), j.finished_at;

-- name: find
-- Newest jobs first, below a given id. A branch is skipped if no job in it can have the requested state, so that failed jobs
-- are found by their index without scanning the history, or the unfinished jobs.
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (ARRAY (
        SELECT found.id FROM (
            (SELECT f.id FROM {schema}.job AS f
              WHERE %(state)s::text = 'failed' AND f.state OPERATOR(pg_catalog.=) 'failed'
                AND f.state OPERATOR(pg_catalog.<>) ALL ('{scheduled,available,running}'::{schema}.job_state[])
                AND {matching: f}
              ORDER BY f.id DESC
              LIMIT %(limit)s)
            UNION ALL
            (SELECT u.id FROM {schema}.job AS u
              WHERE (%(state)s::text IS NULL OR %(state)s IN ('scheduled', 'blocked', 'available', 'running'))
                AND (%(state)s::text IS NULL OR u.state::text = %(state)s)
                AND {matching: u}
              ORDER BY u.id DESC
              LIMIT %(limit)s)
            UNION ALL
            (SELECT h.id FROM {schema}.job_history AS h
              WHERE (%(state)s::text IS NULL OR %(state)s IN ('completed', 'cancelled', 'discarded'))
                AND (%(state)s::text IS NULL OR h.state::text = %(state)s)
                AND {matching: h}
              ORDER BY h.id DESC
              LIMIT %(limit)s)
            ) AS found
         ORDER BY found.id DESC
         LIMIT %(limit)s))
   AND (%(state)s::text IS NULL OR j.state = %(state)s) AND {matching: j} -- the id may have been assigned twice
 ORDER BY j.id DESC;

-- name: find_holders
-- The jobs that hold a unique key, newest first: one for each task. A row of unique_key without an expiry time counts only
-- while its job has the flag that it holds a key.
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (ARRAY (
        SELECT k.job_id FROM {schema}.unique_key AS k
         WHERE k.key = %(key)s AND (%(task)s::text IS NULL OR k.task = %(task)s)
           AND (k.expires_at > pg_catalog.clock_timestamp()
                OR k.expires_at IS NULL AND EXISTS (SELECT FROM {schema}.job AS h WHERE h.id = k.job_id AND h.holds_key))
           AND (%(below)s::bigint IS NULL OR k.job_id < %(below)s)))
   AND (%(state)s::text IS NULL OR j.state = %(state)s) AND {matching: j}
 ORDER BY j.id DESC
 LIMIT %(limit)s;

-- name: cancel
-- Cancels waiting jobs and requests the cancellation of running ones. FOR UPDATE returns the state after a concurrent claim.
WITH target AS MATERIALIZED (
    SELECT j.id, j.state FROM {schema}.job AS j
     WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.<>) 'failed'
     ORDER BY j.id
       FOR UPDATE
), requested AS (
    UPDATE {schema}.job AS j SET cancel_requested_at = coalesce(j.cancel_requested_at, pg_catalog.clock_timestamp())
     WHERE j.id = ANY (ARRAY (SELECT id FROM target WHERE state OPERATOR(pg_catalog.=) 'running'))
    RETURNING j.id
), done AS (
    DELETE FROM {schema}.job AS j
     WHERE j.id = ANY (ARRAY (SELECT id FROM target WHERE state OPERATOR(pg_catalog.<>) 'running'))
    RETURNING j.*
), freed AS (
    {free_keys: SELECT id FROM done WHERE holds_key}
), archived AS (
    {archive: d.crashes, 'cancelled', NULL, NULL, d.errors}
), audited AS (
    {audit_jobs: 'job.cancel' FROM (SELECT id FROM archived UNION ALL SELECT id FROM requested) AS c}
)
SELECT id, 'cancelled' AS state FROM archived
 UNION ALL
SELECT id, 'running' FROM requested;

-- name: retry
-- Makes failed jobs available again with all their attempts, and with other arguments if they are given; errors are kept.
WITH target AS MATERIALIZED (
    SELECT j.id FROM {schema}.job AS j
     WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.=) 'failed'
     ORDER BY j.id
       FOR UPDATE
), retried AS (
    UPDATE {schema}.job AS j
       SET state = 'available', seq = pg_catalog.nextval('{schema}.job_seq'::regclass), attempt = 0, crashes = 0,
           run_at = pg_catalog.clock_timestamp(), node_losses = 0, unknown_task_count = 0, failed_at = NULL, claimed_at = NULL, cancel_requested_at = NULL, progress = NULL,
           args = coalesce(%(args)s::jsonb, j.args)
     WHERE j.id IN (SELECT id FROM target)
    RETURNING j.id, j.queue
), audited AS (
    {audit_jobs: CASE WHEN %(args)s::jsonb IS NULL THEN 'job.retry' ELSE 'job.edit' END FROM retried AS c}
)
SELECT r.id, (SELECT {schema}.wake(ARRAY[r.queue])) FROM retried AS r;

-- name: discard
-- Moves failed jobs to the history as discarded.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.=) 'failed'
             ORDER BY j.id
               FOR UPDATE))
    RETURNING *
), audited AS (
    {audit_jobs: 'job.discard' FROM done AS c}
)
{archive: d.crashes, 'discarded', NULL, NULL, d.errors};

-- name: run_now
-- Makes scheduled jobs available at once.
WITH target AS MATERIALIZED (
    SELECT j.id FROM {schema}.job AS j
     WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.=) 'scheduled'
     ORDER BY j.id
       FOR UPDATE
), started AS (
    UPDATE {schema}.job AS j
       SET state = 'available', seq = pg_catalog.nextval('{schema}.job_seq'::regclass), run_at = pg_catalog.clock_timestamp()
     WHERE j.id IN (SELECT id FROM target)
    RETURNING j.id, j.queue
), audited AS (
    {audit_jobs: 'job.run_now' FROM started AS c}
)
SELECT s.id, (SELECT {schema}.wake(ARRAY[s.queue])) FROM started AS s;

-- name: move
-- Moves jobs that are not running to another queue or priority. An available one gets a new seq, because claims have passed
-- its old one there.
WITH target AS MATERIALIZED (
    SELECT j.id FROM {schema}.job AS j
     WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.<>) 'running'
       AND (j.queue::text, j.priority::pg_catalog.int2) IS DISTINCT FROM
           (coalesce(%(queue)s::text, j.queue::text), coalesce(%(priority)s::pg_catalog.int2, j.priority::pg_catalog.int2))
     ORDER BY j.id
       FOR UPDATE
), moved AS (
    UPDATE {schema}.job AS j
       SET queue = coalesce(%(queue)s::text, j.queue), priority = coalesce(%(priority)s::pg_catalog.int2, j.priority),
           seq = CASE WHEN j.state OPERATOR(pg_catalog.=) 'available'
                      THEN pg_catalog.nextval('{schema}.job_seq'::regclass) ELSE j.seq END
     WHERE j.id IN (SELECT id FROM target)
    RETURNING j.id, j.queue, j.state
), audited AS (
    {audit_jobs: 'job.move' FROM moved AS c}
)
SELECT m.id, (SELECT {schema}.wake(ARRAY[m.queue]) WHERE m.state OPERATOR(pg_catalog.=) 'available') FROM moved AS m;

-- name: again
-- Enqueues copies of jobs that have ended or failed: same task, queue, priority and tags, and the same arguments unless
-- others are given. Options of the single job
-- are known of a failed one only. A failure hook is not copied: no failure has enqueued the copy, which would not run. Of jobs
-- with the same id the last one in this order counts: see `show`.
WITH source AS MATERIALIZED (
    SELECT DISTINCT ON (f.id) f.*, pg_catalog.nextval('{schema}.job_id_seq'::regclass) AS new_id
      FROM (SELECT j.id, j.queue, j.priority::pg_catalog.int2, j.task, j.args::pg_catalog.jsonb, j.overrides::pg_catalog.jsonb,
                   j.tags::text[], j.meta, j.is_hook, 'infinity'::timestamptz AS finished_at
              FROM {schema}.job AS j WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state OPERATOR(pg_catalog.=) 'failed'
             UNION ALL
            SELECT h.id, h.queue, h.priority, h.task, h.args, NULL, h.tags, h.meta, h.is_hook, h.finished_at
              FROM {schema}.job_history AS h WHERE h.id = ANY (%(ids)s::bigint[])) AS f
     WHERE NOT f.is_hook
     ORDER BY f.id, f.finished_at DESC
), enqueued AS (
    INSERT INTO {schema}.job (id, queue, priority, task, args, overrides, tags, meta)
    SELECT s.new_id, s.queue, s.priority, s.task, coalesce(%(args)s::pg_catalog.jsonb, s.args), s.overrides, s.tags,
           coalesce(s.meta, '{}') - '{cron,tick}'::text[] || pg_catalog.jsonb_build_object('copy_of', s.id)
      FROM source AS s
     ORDER BY s.id
    RETURNING id, queue
), audited AS (
    {audit: pg_catalog.jsonb_build_object('jobs', pg_catalog.jsonb_agg(c.id ORDER BY c.id),
            'copies', pg_catalog.jsonb_agg(c.new_id ORDER BY c.id)), pg_catalog.count(*)::integer, 'job.again' FROM source AS c}
)
SELECT s.id, s.new_id, (SELECT {schema}.wake(ARRAY[e.queue])) FROM enqueued AS e JOIN source AS s ON s.new_id = e.id;

-- name: sequences
-- The last number of each sequence and the highest number in use. If that is higher, numbers would be assigned twice. The
-- highest seq of available jobs is read lane by lane because no index begins with seq. Numbers from 2^62 on were written by
-- hand; a sequence advanced to them would soon be exhausted, and nothing could be enqueued.
WITH RECURSIVE lane AS (
    (SELECT j.queue, j.priority FROM {schema}.job AS j
      WHERE j.state = 'available' ORDER BY j.queue, j.priority LIMIT 1)
    UNION ALL
    SELECT later.queue, later.priority
      FROM lane
     CROSS JOIN LATERAL (
            SELECT j.queue, j.priority FROM {schema}.job AS j
             WHERE j.state = 'available' AND (j.queue, j.priority) > (lane.queue, lane.priority)
             ORDER BY j.queue, j.priority LIMIT 1) AS later
)
SELECT 'job_id_seq' AS sequence, s.last_value - 1 + s.is_called::int AS at,
       greatest((SELECT pg_catalog.max(id) FROM {schema}.job WHERE id < 1::bigint << 62),
                (SELECT pg_catalog.max(id) FROM {schema}.job_history WHERE id < 1::bigint << 62), 0) AS highest
  FROM {schema}.job_id_seq AS s
 UNION ALL
SELECT 'job_seq', s.last_value - 1 + s.is_called::int, coalesce((
       SELECT pg_catalog.max(highest.seq) FROM lane CROSS JOIN LATERAL (
              SELECT j.seq FROM {schema}.job AS j
               WHERE j.state = 'available' AND j.queue = lane.queue AND j.priority = lane.priority
                 AND j.seq < 1::bigint << 62
               ORDER BY j.seq DESC LIMIT 1) AS highest), 0)
  FROM {schema}.job_seq AS s;

-- name: advance
-- Moves a sequence forward, never back.
SELECT pg_catalog.setval(%(sequence)s::regclass, greatest(%(number)s::bigint, pg_catalog.nextval(%(sequence)s::regclass)));

-- name: suppressing
-- The row triggers that run before a change and may return NULL, judged by their source, and the rules that replace a
-- change. `bit` names the bits of tgtype (pg_trigger.h).
SELECT 'trigger' AS kind, t.tgname AS name, c.relname AS relation,
       CASE WHEN p.prosrc ~* 'return\s+null'
            THEN pg_catalog.concat('its function ', p.oid::regprocedure, ' contains RETURN NULL')
            ELSE pg_catalog.concat('its function ', p.oid::regprocedure, ' does not contain RETURN OLD, and NEW is NULL for a DELETE')
            END AS why
  FROM pg_trigger AS t
  JOIN pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_proc AS p ON p.oid = t.tgfoid
  JOIN pg_language AS l ON l.oid = p.prolang
 CROSS JOIN (SELECT 1::smallint AS for_each_row, 2::smallint AS before, 8::smallint AS on_delete) AS bit
 WHERE c.relnamespace = '{schema}'::regnamespace AND NOT t.tgisinternal AND t.tgparentid = 0 -- else of a partition
   AND t.tgenabled IN ('O', 'A') AND t.tgtype & bit.for_each_row <> 0 AND t.tgtype & bit.before <> 0
   AND l.lanname = 'plpgsql'
   AND (p.prosrc ~* 'return\s+null' OR t.tgtype & bit.on_delete <> 0 AND p.prosrc !~* 'return\s+old')
 UNION ALL
SELECT 'rule', r.rulename, c.relname, 'it is executed INSTEAD of the change'
  FROM pg_rewrite AS r
  JOIN pg_class AS c ON c.oid = r.ev_class
 WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind IN ('r', 'p') AND r.is_instead AND r.ev_type <> '1'
 ORDER BY relation, kind, name;
