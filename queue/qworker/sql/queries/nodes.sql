-- A scheduler's statements: those that keep its node alive, and those that any node may run for the whole cluster. Each
-- may run on all nodes at the same time; only one of them takes effect.

-- name: register
INSERT INTO {schema}.node (name, version, queues, processes, lease)
VALUES (%(name)s, %(version)s, %(queues)s, %(processes)s, %(lease)s)
RETURNING id, beat;

-- name: renew
-- Renews the lease separately, so that a node keeps its lease if `poll` fails. The row is found by ctid, because the
-- index on `id` visits every version kept by an old snapshot, one for each second. Returns the new ctid. No row means
-- that the ctid is outdated or that another node has declared this node dead.
UPDATE {schema}.node
   SET beat = CASE WHEN beat < 4611686018427387904 THEN beat + 1 ELSE 0 END, state = %(state)s::jsonb, returned = %(returned)s, heartbeat_at = clock_timestamp()
 WHERE ctid = %(ctid)s::tid AND id = %(node)s
RETURNING ctid::text;

-- name: find_ctid
SELECT n.ctid::text FROM {schema}.node AS n WHERE n.id = %(node)s;

-- name: mark_idle
INSERT INTO {schema}.idle_node (node, queues)
SELECT n.id, n.queues FROM {schema}.node AS n
 WHERE n.id = %(node)s AND NOT EXISTS (SELECT FROM {schema}.idle_node AS s WHERE s.node = n.id);

-- name: mark_busy
DELETE FROM {schema}.idle_node WHERE node = %(node)s;

-- name: deregister
DELETE FROM {schema}.node WHERE id = %(node)s;

-- name: poll
-- The work that is waiting: the heartbeats and leases of other nodes, the first job after each watermark or from
-- `scrub_from` to `scrub_to`, when the next job is due, the jobs to cancel, and whether jobs that this node claimed after
-- `since` are still running. If `ctid` matches, the statement also renews the lease. It neither takes nor waits for a lock
-- on a job. `with_writers` adds the transactions that write to the table: a transaction holds this lock from before it
-- gets a seq until it ends. A prepared transaction has no process and may end at any time. `sweep` adds what is rare: dead
-- nodes of running jobs (a claim may commit after its node was declared dead), and whether a job has expired.
WITH renewed AS (
    UPDATE {schema}.node
       SET beat = CASE WHEN beat < 4611686018427387904 THEN beat + 1 ELSE 0 END, state = %(state)s::jsonb, returned = %(returned)s, heartbeat_at = clock_timestamp()
     WHERE ctid = %(ctid)s::tid AND id = %(node)s
    RETURNING ctid::text AS new_ctid
)
SELECT
    (SELECT renewed.new_ctid FROM renewed) AS ctid,
    others.heartbeats,
    others.returned,
    (SELECT array_agg(least(scrubbed.seq, next.seq) ORDER BY w.lane)
       FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(watermarks)s::bigint[])
            WITH ORDINALITY AS w (queue, priority, watermark, lane)
       LEFT JOIN LATERAL (
                SELECT j.seq FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority AND j.seq > w.watermark
                 ORDER BY j.seq LIMIT 1) AS next ON true
       LEFT JOIN LATERAL (
                SELECT j.seq FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority
                   AND j.seq > %(scrub_from)s AND j.seq <= %(scrub_to)s AND %(scrub_from)s < %(scrub_to)s
                 ORDER BY j.seq LIMIT 1) AS scrubbed ON true) AS first_available,
    seq.last_value - 1 + seq.is_called::int AS last_seq,
    CASE WHEN %(with_writers)s THEN ARRAY (
        SELECT DISTINCT CASE WHEN l.pid IS NULL THEN 'prepared' ELSE l.virtualtransaction END
          FROM pg_locks AS l
         WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = '{schema}.job'::regclass
           AND seq.last_value > 0 -- always true; makes the locks be read after the sequence
           AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    ) ELSE '{}' END AS writers,
    (SELECT extract(epoch FROM d.run_at)::float8 - extract(epoch FROM clock_timestamp())::float8
       FROM {schema}.job AS d
      WHERE d.state = 'scheduled' AND d.run_at >= to_timestamp(%(due_from)s::float8)
      ORDER BY d.run_at LIMIT 1) AS due_in,
    (SELECT coalesce(array_agg(c.id), '{}')
       FROM {schema}.job AS c
      WHERE c.cancel_requested_at >= to_timestamp(%(due_from)s::float8) AND c.node = %(node)s) AS cancels,
    EXISTS (
        SELECT FROM {schema}.job AS h
         WHERE h.state = 'running' AND h.node = %(node)s AND h.claimed_at > to_timestamp(%(since)s::float8)) AS has_running,
    CASE WHEN %(sweep)s THEN (
        WITH RECURSIVE running (node) AS (
            (SELECT j.node FROM {schema}.job AS j WHERE j.state = 'running' ORDER BY j.node LIMIT 1)
            UNION ALL
            SELECT (SELECT j.node FROM {schema}.job AS j
                     WHERE j.state = 'running' AND j.node > running.node ORDER BY j.node LIMIT 1)
              FROM running WHERE running.node IS NOT NULL
        )
        SELECT coalesce(array_agg(node), '{}') FROM running
         WHERE node IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = running.node)
    ) ELSE '{}' END AS dead_nodes,
    CASE WHEN %(sweep)s THEN EXISTS (
        SELECT FROM {schema}.job AS x
         WHERE x.expires_at <= (SELECT clock_timestamp()) AND x.state IN ('available', 'scheduled') AND x.attempt = 0
    ) OR EXISTS (
        SELECT FROM {schema}.job AS y WHERE y.cancel_requested_at IS NOT NULL AND y.state IN ('available', 'scheduled')
    ) ELSE false END AS expired,
    extract(epoch FROM clock_timestamp())::float8 AS at,
    extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took
  FROM {schema}.job_seq AS seq
 CROSS JOIN (
        SELECT coalesce(jsonb_object_agg(n.id, jsonb_build_array(n.beat,
                   CASE WHEN n.lease > 0 AND n.lease <= 86400 THEN greatest(n.lease, 5) ELSE 60 END)), '{}') AS heartbeats,
               min(n.returned) FILTER (WHERE n.returned >= 0) AS returned
          FROM {schema}.node AS n WHERE n.id <> %(node)s) AS others;

-- name: heartbeats
-- The heartbeats and leases of the other nodes, for when `poll` fails.
SELECT n.id, n.beat, CASE WHEN n.lease > 0 AND n.lease <= 86400 THEN greatest(n.lease, 5) ELSE 60 END
  FROM {schema}.node AS n
 WHERE n.id <> %(node)s;

-- name: cancels
-- The jobs of this node whose cancellation is requested, for when `poll` fails.
SELECT c.id FROM {schema}.job AS c WHERE c.cancel_requested_at IS NOT NULL AND c.node = %(node)s;

-- name: dead_nodes
-- The dead nodes to which running jobs belong, for when `poll` fails.
SELECT DISTINCT j.node
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = j.node);

-- name: promote
-- Makes due jobs available, oldest first, except those in `spared`; each gets its seq now. Returns the queues to wake.
UPDATE {schema}.job AS j
   SET state = 'available', seq = nextval('{schema}.job_seq'), run_at = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT d.id FROM {schema}.job AS d
         WHERE d.state = 'scheduled'
           AND d.run_at >= to_timestamp(%(due_from)s::float8)
           AND d.run_at <= (SELECT coalesce(to_timestamp(%(at)s::float8), clock_timestamp()))
           AND d.id <> ALL (%(spared)s::bigint[])
         ORDER BY d.run_at
         LIMIT %(limit)s::bigint
           FOR UPDATE SKIP LOCKED))
RETURNING j.queue;

-- name: first_due
-- The job that `promote` would update first.
SELECT d.id FROM {schema}.job AS d
 WHERE d.state = 'scheduled'
   AND d.run_at >= to_timestamp(%(due_from)s::float8)
   AND d.run_at <= (SELECT coalesce(to_timestamp(%(at)s::float8), clock_timestamp()))
   AND d.id <> ALL (%(spared)s::bigint[])
 ORDER BY d.run_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED;

-- name: unfinished
-- Whether these queues hold work. A job that waits for its backoff is work; a job enqueued with a delay is not.
SELECT EXISTS (
    SELECT FROM unnest(%(queues)s::text[]) AS q
     CROSS JOIN LATERAL (SELECT FROM {schema}.job AS j WHERE j.state = 'available' AND j.queue = q LIMIT 1) AS waiting
) OR EXISTS (SELECT FROM {schema}.job AS j WHERE j.state = 'running' AND j.queue = ANY (%(queues)s::text[])
) OR EXISTS (SELECT FROM {schema}.job AS j WHERE j.state = 'scheduled' AND j.attempt > 0 AND j.queue = ANY (%(queues)s::text[]));

-- name: running
-- The running jobs of this node that were claimed after `since`.
SELECT j.id, j.token, extract(epoch FROM j.claimed_at)::float8
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node = %(node)s AND j.claimed_at > to_timestamp(%(since)s::float8);

-- name: claim_jobs
-- The jobs of a claim, with the columns that decide their outcome.
SELECT j.id, j.task, j.queue, j.attempt, j.crashes, j.flags, j.overrides::text, j.cancel_requested_at IS NOT NULL
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node = %(node)s AND j.token = %(token)s;

-- name: record_crash
-- Makes a job whose worker died available, or schedules it after `delay`. The attempt and the crash are counted.
UPDATE {schema}.job AS j
   SET state = CASE WHEN %(delay)s::float8 > 0 THEN 'scheduled'::{schema}.job_state ELSE 'available' END,
       run_at = CASE WHEN %(delay)s::float8 > 0 THEN clock_timestamp() + make_interval(secs => %(delay)s::float8) END,
       crashes = least(j.crashes + 1, 32000), token = NULL, node = NULL, claimed_at = NULL,
       errors = {schema}.append_error(j.errors, %(error)s::jsonb)
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.id = %(id)s AND l.token = %(token)s
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: release_claim
-- Releases the jobs of a claim, except those in `spared`: the attempt is not counted and they keep their seq.
UPDATE {schema}.job AS j
   SET state = 'available', attempt = greatest(j.attempt, 1) - 1, token = NULL, node = NULL, claimed_at = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.state = 'running' AND l.node = %(node)s AND l.token = %(token)s
           AND l.id <> ALL (%(spared)s::bigint[])
           FOR UPDATE SKIP LOCKED))
RETURNING j.queue;

-- name: end_sessions
-- Terminates the sessions of a dead process: their queries hold locks until they end.
SELECT pg_terminate_backend(a.pid)
  FROM pg_stat_activity AS a
 WHERE a.usename = current_user AND a.pid <> pg_backend_pid()
   AND right(a.application_name, length(%(tag)s)) = %(tag)s;

-- name: delete_dead_node
-- Declares a node dead if its heartbeat has not changed. The node that deletes the row releases the jobs.
DELETE FROM {schema}.node WHERE id = %(dead)s AND beat = %(beat)s RETURNING id;

-- name: record_node_loss
-- Releases up to `limit` jobs of a dead node, except those in `spared`, or the one job of a claim that was running when
-- this node had to stop its workers. The job is not known to be the cause: the loss is counted, the attempt is not. At
-- `max_losses` the job fails: its key is freed, and its failure hook is enqueued if the task is in `hooks`.
WITH lost AS (
    UPDATE {schema}.job AS j
       SET state = CASE WHEN j.node_losses + 1 >= %(max_losses)s THEN 'failed'::{schema}.job_state ELSE 'available' END,
           failed_at = CASE WHEN j.node_losses + 1 >= %(max_losses)s THEN clock_timestamp() END,
           attempt = greatest(j.attempt, 1) - 1, node_losses = least(j.node_losses + 1, 32000),
           flags = CASE WHEN j.node_losses + 1 >= %(max_losses)s THEN j.flags & ~1 ELSE j.flags END,
           token = NULL, node = NULL, claimed_at = NULL,
           errors = {schema}.append_error(j.errors, jsonb_build_object(
               'at', clock_timestamp(), 'attempt', j.attempt) || %(error)s::jsonb || CASE
               WHEN j.node_losses + 1 >= %(max_losses)s AND j.flags & 2 = 0 AND j.task = ANY (%(hooks)s::text[])
               THEN jsonb_build_object('hook', nextval('{schema}.job_id_seq')) ELSE '{}' END)
     WHERE j.id = ANY (ARRAY (
            SELECT l.id FROM {schema}.job AS l
             WHERE l.state = 'running' AND l.node = %(dead)s::bigint AND l.id <> ALL (%(spared)s::bigint[])
             ORDER BY l.claimed_at
             LIMIT %(limit)s::bigint
               FOR UPDATE SKIP LOCKED) || ARRAY (
            SELECT l.id FROM {schema}.job AS l
             WHERE l.id = %(id)s::bigint AND l.token = %(token)s::bigint
               FOR UPDATE SKIP LOCKED))
    RETURNING j.id, j.queue, j.task, j.priority, j.state, j.attempt, (j.errors -> -1 ->> 'hook')::bigint AS hook
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM lost WHERE state = 'failed')) AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
), hooked AS (
    INSERT INTO {schema}.job (id, queue, task, priority, args, flags)
    SELECT l.hook, l.queue, l.task, l.priority, jsonb_build_object('job', l.id), 2 FROM lost AS l
     WHERE l.state = 'failed' AND l.hook IS NOT NULL
)
SELECT id, task, queue, attempt, state::text FROM lost;

-- name: first_lost
-- The job of a node that `record_node_loss` would update first.
SELECT l.id FROM {schema}.job AS l
 WHERE l.state = 'running' AND l.node = %(dead)s::bigint AND l.id <> ALL (%(spared)s::bigint[])
 ORDER BY l.claimed_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED;

-- name: declare_cron
-- Declares a schedule; the declaration of the newest live node takes effect. A new schedule starts now.
INSERT INTO {schema}.cron AS c (name, task, expression, timezone, declared_by)
VALUES (%(name)s, %(task)s, %(expression)s, %(timezone)s, %(node)s)
ON CONFLICT (name) DO UPDATE
   SET task = excluded.task, expression = excluded.expression, timezone = excluded.timezone,
       declared_by = excluded.declared_by, declared_at = clock_timestamp()
 WHERE c.declared_by <= excluded.declared_by
    OR NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = c.declared_by);

-- name: schedules
-- The stored schedules. A node enqueues those that match its own declaration.
SELECT c.name, c.task, c.expression, c.timezone,
       extract(epoch FROM coalesce(c.last_tick, c.created_at))::float8 AS last_tick,
       extract(epoch FROM clock_timestamp())::float8 AS at
  FROM {schema}.cron AS c
 WHERE c.name = ANY (%(names)s::text[]);

-- name: tick
-- Enqueues one tick of a schedule and records it in last_tick; the lock on the schedule's row admits one node. The job is
-- the same as from the task's enqueue (enqueue.sql). If another job holds its key, the tick is recorded without a job.
-- No row means that another node has enqueued the tick. A row without an id means that no job was stored; `holder` is the
-- job that holds the key, or NULL if it took the key while this statement ran. If an uncommitted transaction has inserted
-- the same key, the statement waits up to lock_timeout and then fails; the tick is tried again later.
WITH won AS (
    UPDATE {schema}.cron
       SET last_tick = to_timestamp(%(tick)s::float8)
     WHERE name = %(name)s AND coalesce(last_tick, created_at) < to_timestamp(%(tick)s::float8)
       AND expression = %(expression)s AND timezone = %(timezone)s
    RETURNING name
), clock AS MATERIALIZED (
    SELECT won.name, coalesce(to_timestamp(%(at)s::float8), clock_timestamp()) AS now FROM won
), seen AS MATERIALIZED (
    SELECT k.job_id,
           CASE WHEN k.until IS NULL
                THEN NOT EXISTS (SELECT FROM {schema}.job AS j WHERE j.id = k.job_id AND j.flags & 1 = 1)
                ELSE k.until <= clock.now END AS over
      FROM {schema}.unique_key AS k, clock
     WHERE k.scope = %(task)s AND k.key = %(key)s
), renewed AS (
    UPDATE {schema}.unique_key AS k
       SET job_id = nextval('{schema}.job_id_seq'), until = clock.now + make_interval(secs => %(period)s::float8)
      FROM clock
     WHERE k.scope = %(task)s AND k.key = %(key)s AND k.job_id = (SELECT seen.job_id FROM seen WHERE seen.over)
    RETURNING k.job_id
), taken AS (
    INSERT INTO {schema}.unique_key (scope, key, job_id, until)
    SELECT %(task)s, %(key)s, nextval('{schema}.job_id_seq'), clock.now + make_interval(secs => %(period)s::float8)
      FROM clock
     WHERE %(key)s::text IS NOT NULL AND NOT EXISTS (SELECT FROM seen)
        ON CONFLICT DO NOTHING
    RETURNING job_id
), numbered AS (
    SELECT job_id FROM renewed
     UNION ALL
    SELECT job_id FROM taken
     UNION ALL
    SELECT nextval('{schema}.job_id_seq') FROM clock WHERE %(key)s::text IS NULL
), enqueued AS (
    INSERT INTO {schema}.job (id, task, queue, priority, overrides, tags, state, run_at, expires_at, flags)
    SELECT p.job_id, %(task)s, %(queue)s, %(priority)s,
           jsonb_build_object('cron', clock.name, 'tick', %(tick)s::float8), %(tags)s::text[],
           CASE WHEN %(delay)s::float8 > 0 THEN 'scheduled'::{schema}.job_state ELSE 'available' END,
           CASE WHEN %(delay)s::float8 > 0 THEN clock.now + make_interval(secs => %(delay)s::float8) END,
           coalesce(to_timestamp(%(expires_at)s::float8), clock.now + make_interval(secs => %(expires)s::float8)),
           CASE WHEN %(key)s::text IS NOT NULL AND %(period)s::float8 IS NULL THEN 1 ELSE 0 END
      FROM numbered AS p, clock
    RETURNING id, state, queue
)
SELECT e.id, (SELECT seen.job_id FROM seen WHERE NOT seen.over) AS holder,
       (SELECT {schema}.wake(ARRAY[e.queue]) WHERE e.state = 'available')
  FROM won
  LEFT JOIN enqueued AS e ON true;

-- name: delete_unused_schedules
-- Deletes schedules that no live node declares.
DELETE FROM {schema}.cron AS c
 WHERE NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.state -> 'cron' ? c.name)
   AND c.declared_at < clock_timestamp() - make_interval(secs => 300)
   AND coalesce(c.last_tick, c.created_at) < clock_timestamp() - make_interval(days => 31);

-- name: expire
-- Cancels jobs that have expired before their first attempt, and jobs that were released after their cancellation was
-- requested: up to `limit`, except those in `spared`.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY ((ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.expires_at <= (SELECT clock_timestamp()) AND j.state IN ('available', 'scheduled') AND j.attempt = 0
               AND j.id <> ALL (%(spared)s::bigint[])
             ORDER BY j.expires_at
             LIMIT %(limit)s::bigint
               FOR UPDATE SKIP LOCKED) || ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.cancel_requested_at IS NOT NULL AND j.state IN ('available', 'scheduled')
               AND j.id <> ALL (%(spared)s::bigint[])
             ORDER BY j.cancel_requested_at
             LIMIT %(limit)s::bigint
               FOR UPDATE SKIP LOCKED))[1:%(limit)s::integer])
    RETURNING *
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM done WHERE flags & 1 = 1)) AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
)
INSERT INTO {schema}.job_history (
    id, enqueued_at, finished_at, state, attempt, day, priority, crashes, node_losses, flags, queue, task, args, errors, tags)
SELECT d.id, d.enqueued_at, t.finished_at, 'cancelled', d.attempt, {schema}.history_day(t.finished_at), d.priority, d.crashes,
       d.node_losses, d.flags, d.queue, d.task, d.args,
       {schema}.append_error(d.errors, jsonb_build_object('at', t.finished_at, 'attempt', d.attempt) || CASE
           WHEN d.cancel_requested_at IS NULL
           THEN jsonb_build_object('type', 'Expired', 'message', 'not started before ' || d.expires_at)
           ELSE jsonb_build_object('type', 'Cancelled', 'message', 'cancelled at ' || d.cancel_requested_at) END),
       d.tags
  FROM done AS d
 CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
RETURNING id;

-- name: first_expired
-- The job that `expire` would end first.
SELECT (ARRAY (
        SELECT j.id FROM {schema}.job AS j
         WHERE j.expires_at <= (SELECT clock_timestamp()) AND j.state IN ('available', 'scheduled') AND j.attempt = 0
           AND j.id <> ALL (%(spared)s::bigint[])
         ORDER BY j.expires_at
         LIMIT 1
           FOR UPDATE SKIP LOCKED) || ARRAY (
        SELECT j.id FROM {schema}.job AS j
         WHERE j.cancel_requested_at IS NOT NULL AND j.state IN ('available', 'scheduled') AND j.id <> ALL (%(spared)s::bigint[])
         ORDER BY j.cancel_requested_at
         LIMIT 1
           FOR UPDATE SKIP LOCKED))[1];

-- name: discard_failed
-- Moves up to `limit` jobs that failed more than `keep` seconds ago to the history, except those in `spared`.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.state NOT IN ('scheduled', 'available', 'running')
               AND j.failed_at < (SELECT clock_timestamp() - make_interval(secs => %(keep)s::float8))
               AND j.id <> ALL (%(spared)s::bigint[])
             ORDER BY j.failed_at
             LIMIT %(limit)s::bigint
               FOR UPDATE SKIP LOCKED))
    RETURNING *
)
INSERT INTO {schema}.job_history (
    id, enqueued_at, claimed_at, finished_at, state, attempt, day, priority, crashes, node_losses, flags, queue, task, args,
    errors, tags)
SELECT d.id, d.enqueued_at, d.claimed_at, t.finished_at, 'discarded', d.attempt, {schema}.history_day(t.finished_at),
       d.priority, d.crashes, d.node_losses, d.flags, d.queue, d.task, d.args, d.errors, d.tags
  FROM done AS d
 CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
RETURNING id;

-- name: first_discarded
-- The job that `discard_failed` would move first.
SELECT j.id FROM {schema}.job AS j
 WHERE j.state NOT IN ('scheduled', 'available', 'running')
   AND j.failed_at < (SELECT clock_timestamp() - make_interval(secs => %(keep)s::float8))
   AND j.id <> ALL (%(spared)s::bigint[])
 ORDER BY j.failed_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED;

-- name: restart_unclaimed
-- Release running jobs that name no node or no claim. No statement writes such a row, and no worker runs the job.
UPDATE {schema}.job AS j
   SET state = 'available', seq = nextval('{schema}.job_seq'), run_at = NULL, token = NULL, node = NULL,
       claimed_at = NULL, progress = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.state = 'running' AND (l.node IS NULL OR l.token IS NULL)
         LIMIT 1000
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: old_claims
-- The claims of this node that are older than `age` seconds or have no time; polls search for newer claims only.
SELECT DISTINCT j.token FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node = %(node)s AND j.token IS NOT NULL
   AND (j.claimed_at IS NULL OR j.claimed_at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8)));

-- name: renumber
-- Give available jobs a new seq that have one of 0 or below: claims start above 0.
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
-- Move jobs to the history whose state is none of this table's: one of the history, or one that is not in use yet.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.state NOT IN ('scheduled', 'available', 'running') AND j.state <> 'failed' AND j.failed_at IS NULL
             LIMIT 1000
               FOR UPDATE SKIP LOCKED))
    RETURNING *
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM done WHERE flags & 1 = 1)) AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
)
INSERT INTO {schema}.job_history (
    id, enqueued_at, finished_at, state, attempt, day, priority, crashes, node_losses, flags, queue, task, args, errors, tags)
SELECT d.id, d.enqueued_at, t.finished_at, 'discarded', d.attempt, {schema}.history_day(t.finished_at), d.priority, d.crashes,
       d.node_losses, d.flags, d.queue, d.task, d.args,
       {schema}.append_error(d.errors, jsonb_build_object(
           'at', t.finished_at, 'attempt', d.attempt, 'type', 'InvalidState',
           'message', format('the state %%s was written to the table of unfinished jobs', d.state))),
       d.tags
  FROM done AS d
 CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
RETURNING id;

-- name: date_failures
-- Set the time of failed jobs that have none: retention would keep them for ever.
UPDATE {schema}.job AS j
   SET failed_at = clock_timestamp()
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.state = 'failed' AND l.failed_at IS NULL
         LIMIT 1000
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: delete_unheld_keys
-- Delete keys whose jobs have ended: a job's end skips a key that another session has locked. Checks up to 1,000 keys of
-- jobs above `after`; returns the highest of these jobs, NULL if there are none. A key that is taken over meanwhile names
-- another job by then, and is kept.
WITH checked AS MATERIALIZED (
    SELECT k.job_id FROM {schema}.unique_key AS k
     WHERE k.until IS NULL AND k.job_id > %(after)s
     ORDER BY k.job_id
     LIMIT 1000
), unheld AS MATERIALIZED (
    SELECT s.job_id FROM checked AS s
      LEFT JOIN LATERAL (SELECT true AS holds FROM {schema}.job AS j WHERE j.id = s.job_id AND j.flags & 1 = 1 LIMIT 1) AS job
        ON true -- planned on an empty table, an anti-join would compare each key with every job
     WHERE job.holds IS NULL
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT job_id FROM unheld)) AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
)
SELECT max(job_id) FROM checked;

-- name: delete_expired_keys
-- Deletes keys whose period has ended.
DELETE FROM {schema}.unique_key
 WHERE ctid = ANY (ARRAY (
        SELECT k.ctid FROM {schema}.unique_key AS k
         WHERE k.until <= (SELECT clock_timestamp()) LIMIT 1000 FOR UPDATE SKIP LOCKED));

-- name: expired_days
-- The ring days that are more than `keep` days old; the ring has 32 days.
SELECT {schema}.history_day(clock_timestamp() - make_interval(days => back))
  FROM generate_series(%(keep)s::int + 1, 30) AS back;

-- name: truncate_history_day
SELECT {schema}.truncate_history_day(%(day)s::int);

-- name: listen
LISTEN {schema};
