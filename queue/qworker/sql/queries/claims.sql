-- A worker's statements. Each statement that changes a job checks the token of the claim, so a stale worker cannot write.
-- Claimed jobs are found by primary key and never by state: the partial index on running jobs fills with dead entries
-- while an old snapshot is held anywhere in the database.

-- name: claim
-- Claims up to `limit` jobs: in the given order of queues, then by priority, lowest first, then by seq. Expired jobs are
-- skipped; `expire` ends them. `attempt` is clamped because a row edited by hand must not overflow: the error would undo
-- the whole claim, and the queue would stop.
-- The form id = ANY (ARRAY (SELECT ...)) is executed as an index scan even if it was planned on an empty table.
UPDATE {schema}.job AS j
   SET state = 'running', attempt = least(greatest(j.attempt, 0), 1000000000) + 1, token = %(token)s, node = %(node)s,
       claimed_at = clock_timestamp(), run_at = NULL, progress = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT ready.id
          FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(cursors)s::bigint[]) AS w (queue, priority, cursor)
         CROSS JOIN LATERAL (
                SELECT r.id
                  FROM {schema}.job AS r
                 WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq > w.cursor
                   AND (r.expires_at IS NULL OR r.attempt > 0 OR r.expires_at > clock_timestamp())
                 ORDER BY r.seq
                 LIMIT %(limit)s
                   FOR UPDATE SKIP LOCKED
               ) AS ready
         LIMIT %(limit)s))
RETURNING j.id, j.seq, j.priority, j.queue, j.task, j.args::text, j.attempt, j.crashes::int + j.node_losses AS crash_count, j.flags,
          extract(epoch FROM j.enqueued_at)::float8 AS enqueued_at, j.overrides::text, j.unknown_task_count;

-- name: acknowledge
-- Moves completed jobs to the history and frees their keys, except those taken for a period; returns the ids moved. A row
-- locked by another session is left for the next attempt. Like `lock_claimed`, it also runs on the handler's connection,
-- where other roles may create objects in a schema of the search_path: see enqueue.sql.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.id = ANY (%(ids)s::bigint[]) AND j.token = %(token)s
             ORDER BY j.id
               FOR UPDATE SKIP LOCKED))
    RETURNING *
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM done WHERE flags & 1::smallint = 1))
               AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
)
INSERT INTO {schema}.job_history (
    id, token, enqueued_at, claimed_at, finished_at, duration, state, attempt, day, priority, crashes, node_losses, flags,
    queue, task, args, result, errors, tags)
SELECT d.id, d.token, d.enqueued_at, d.claimed_at, t.finished_at, coalesce((%(durations)s::jsonb ->> d.id::text)::real, 0),
       'completed', d.attempt, {schema}.history_day(t.finished_at), d.priority, d.crashes, d.node_losses, d.flags,
       d.queue, d.task, d.args, %(results)s::jsonb -> d.id::text, d.errors, d.tags
  FROM done AS d
 CROSS JOIN (SELECT pg_catalog.clock_timestamp() AS finished_at) AS t
RETURNING id;

-- name: lock_claimed
-- Locks a job of this claim until the transaction ends; waits for a session that has locked it.
SELECT j.id FROM {schema}.job AS j WHERE j.id = %(id)s AND j.token = %(token)s FOR UPDATE;

-- name: end_session
-- Terminates a session to which the worker has lost its connection, and which might still commit the work of the job.
SELECT pg_terminate_backend(a.pid)
  FROM pg_stat_activity AS a
 WHERE a.pid = %(pid)s AND a.usename = current_user
   AND right(a.application_name, length(%(role)s)) = %(role)s;

-- name: end
-- Moves one job to the history as 'cancelled' or 'discarded', with an error.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
            SELECT j.id FROM {schema}.job AS j
             WHERE j.id = %(id)s AND j.token = %(token)s
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
    id, token, enqueued_at, claimed_at, finished_at, duration, state, attempt, day, priority, crashes, node_losses, flags,
    queue, task, args, errors, tags)
SELECT d.id, d.token, d.enqueued_at, d.claimed_at, t.finished_at, %(duration)s::real,
       %(state)s::{schema}.job_state, d.attempt, {schema}.history_day(t.finished_at), d.priority, d.crashes, d.node_losses, d.flags,
       d.queue, d.task, d.args, {schema}.append_error(d.errors, %(error)s::jsonb), d.tags
  FROM done AS d
 CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
RETURNING id;

-- name: retry
-- Schedules the next attempt after `delay` seconds; the job gets a new seq when it is due. If its cancellation was
-- requested too late to interrupt the handler, the job is cancelled instead.
WITH mine AS MATERIALIZED (
    SELECT l.cancel_requested_at IS NOT NULL AS cancelled FROM {schema}.job AS l
     WHERE l.id = %(id)s AND l.token = %(token)s
       FOR UPDATE SKIP LOCKED
), again AS (
    UPDATE {schema}.job AS j
       SET state = 'scheduled', run_at = clock_timestamp() + make_interval(secs => %(delay)s::float8),
           token = NULL, node = NULL, claimed_at = NULL, progress = NULL,
           errors = {schema}.append_error(j.errors, %(error)s::jsonb)
     WHERE j.id = %(id)s AND EXISTS (SELECT FROM mine WHERE NOT cancelled)
    RETURNING j.id
), done AS (
    DELETE FROM {schema}.job WHERE id = %(id)s AND EXISTS (SELECT FROM mine WHERE cancelled) RETURNING *
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM done WHERE flags & 1 = 1)) AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
), kept AS (
    INSERT INTO {schema}.job_history (
        id, token, enqueued_at, claimed_at, finished_at, state, attempt, day, priority, crashes, node_losses, flags, queue,
        task, args, errors, tags)
    SELECT d.id, d.token, d.enqueued_at, d.claimed_at, t.finished_at, 'cancelled', d.attempt,
           {schema}.history_day(t.finished_at), d.priority, d.crashes, d.node_losses, d.flags, d.queue, d.task,
           d.args, {schema}.append_error(d.errors, %(error)s::jsonb), d.tags
      FROM done AS d
     CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
    RETURNING id
)
SELECT id FROM again UNION ALL SELECT id FROM kept;

-- name: snooze
-- Schedules a job after `delay` seconds without counting the attempt; `unknown_task` is 1 if the worker lacks the task.
UPDATE {schema}.job AS j
   SET state = 'scheduled', run_at = clock_timestamp() + make_interval(secs => %(delay)s::float8),
       attempt = greatest(j.attempt, 1) - 1, unknown_task_count = least(j.unknown_task_count + %(unknown_task)s::int, 32000),
       token = NULL, node = NULL, claimed_at = NULL, progress = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.id = %(id)s AND l.token = %(token)s
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: fail
-- Marks a job as failed, frees its key, and enqueues its failure hook. The error stores the id of the hook's job: a hook
-- job that no error refers to was not enqueued here and is not run. If the cancellation of the job was requested
-- meanwhile, it ends as cancelled, without its hook.
WITH mine AS MATERIALIZED (
    SELECT l.cancel_requested_at IS NOT NULL AS cancelled FROM {schema}.job AS l
     WHERE l.id = %(id)s AND l.token = %(token)s
       FOR UPDATE SKIP LOCKED
), failed AS (
    UPDATE {schema}.job AS j
       SET state = 'failed', failed_at = clock_timestamp(), crashes = least(j.crashes + %(crashes)s::int, 32000),
           token = NULL, node = NULL, flags = j.flags & ~1, 
           errors = {schema}.append_error(j.errors, %(error)s::jsonb || CASE WHEN %(hook)s
               THEN jsonb_build_object('hook', nextval('{schema}.job_id_seq')) ELSE '{}' END)
     WHERE j.id = %(id)s AND EXISTS (SELECT FROM mine WHERE NOT cancelled)
    RETURNING j.id, j.queue, j.task, j.priority, (j.errors -> -1 ->> 'hook')::bigint AS hook
), done AS (
    DELETE FROM {schema}.job WHERE id = %(id)s AND EXISTS (SELECT FROM mine WHERE cancelled) RETURNING *
), freed AS (
    DELETE FROM {schema}.unique_key
     WHERE ctid = ANY (ARRAY (
            SELECT k.ctid FROM {schema}.unique_key AS k
             WHERE k.job_id = ANY (ARRAY (SELECT id FROM failed UNION ALL SELECT id FROM done WHERE flags & 1 = 1))
               AND k.until IS NULL
               FOR UPDATE SKIP LOCKED))
), kept AS (
    INSERT INTO {schema}.job_history (
        id, token, enqueued_at, claimed_at, finished_at, state, attempt, day, priority, crashes, node_losses, flags, queue,
        task, args, errors, tags)
    SELECT d.id, d.token, d.enqueued_at, d.claimed_at, t.finished_at, 'cancelled', d.attempt,
           {schema}.history_day(t.finished_at), d.priority, least(d.crashes + %(crashes)s::int, 32000), d.node_losses, d.flags,
           d.queue, d.task, d.args, {schema}.append_error(d.errors, %(error)s::jsonb), d.tags
      FROM done AS d
     CROSS JOIN (SELECT clock_timestamp() AS finished_at) AS t
    RETURNING id
), hooked AS (
    INSERT INTO {schema}.job (id, queue, task, priority, args, flags)
    SELECT f.hook, f.queue, f.task, f.priority, jsonb_build_object('job', f.id), 2 FROM failed AS f WHERE %(hook)s
    RETURNING queue
)
SELECT f.id, (SELECT count(*) FROM hooked, LATERAL {schema}.wake(ARRAY[hooked.queue])) FROM failed AS f
 UNION ALL SELECT k.id, 0 FROM kept AS k;

-- name: give_up
-- The last resort if the database repeatedly rejects the outcome of a job: marks it as failed and stores only one error.
UPDATE {schema}.job AS j
   SET state = 'failed', failed_at = clock_timestamp(), token = NULL, node = NULL, cancel_requested_at = NULL, flags = j.flags & ~1,
       errors = jsonb_build_array(%(error)s::jsonb)
 WHERE j.id = %(id)s AND j.token = %(token)s
RETURNING j.id;

-- name: claim_one
-- The next job alone and unread, but for those `spared`: a claim that fails says nothing of which row is to blame.
UPDATE {schema}.job AS j
   SET state = 'running', attempt = least(greatest(j.attempt, 0), 1000000000) + 1, token = %(token)s, node = %(node)s,
       claimed_at = clock_timestamp(), run_at = NULL, progress = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT ready.id
          FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(cursors)s::bigint[]) AS w (queue, priority, cursor)
         CROSS JOIN LATERAL (
                SELECT r.id
                  FROM {schema}.job AS r
                 WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq > w.cursor
                   AND (r.expires_at IS NULL OR r.attempt > 0 OR r.expires_at > clock_timestamp())
                   AND r.id <> ALL (%(spared)s::bigint[])
                 ORDER BY r.seq
                 LIMIT 1
                   FOR UPDATE SKIP LOCKED
               ) AS ready
         LIMIT 1))
RETURNING j.id;

-- name: claimed
-- The jobs of a claim whose answer could not be read.
SELECT j.id FROM {schema}.job AS j WHERE j.state = 'running' AND j.node = %(node)s AND j.token = %(token)s;

-- name: first
-- The job that `claim_one` would claim.
SELECT ready.id, w.queue, w.priority
  FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(cursors)s::bigint[]) AS w (queue, priority, cursor)
 CROSS JOIN LATERAL (
        SELECT r.id
          FROM {schema}.job AS r
         WHERE r.state = 'available' AND r.queue = w.queue AND r.priority = w.priority AND r.seq > w.cursor
           AND (r.expires_at IS NULL OR r.attempt > 0 OR r.expires_at > clock_timestamp())
           AND r.id <> ALL (%(spared)s::bigint[])
         ORDER BY r.seq
         LIMIT 1
           FOR UPDATE SKIP LOCKED
       ) AS ready
 LIMIT 1;

-- name: read
-- The row that `claim` would have returned for a job claimed by `claim_one`.
SELECT j.id, j.seq, j.priority, j.queue, j.task, j.args::text, j.attempt, j.crashes::int + j.node_losses AS crash_count, j.flags,
       extract(epoch FROM j.enqueued_at)::float8 AS enqueued_at, j.overrides::text, j.unknown_task_count
  FROM {schema}.job AS j
 WHERE j.id = %(id)s AND j.token = %(token)s;

-- name: release
-- Releases jobs that were not started: the attempt is not counted and they keep their seq.
UPDATE {schema}.job AS j
   SET state = 'available', attempt = greatest(j.attempt, 1) - 1, token = NULL, node = NULL, claimed_at = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.id = ANY (%(ids)s::bigint[]) AND l.token = %(token)s
         ORDER BY l.id
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: still_claimed
-- The jobs that still have the token; distinguishes a locked row from a claim that has ended.
SELECT id FROM {schema}.job WHERE id = ANY (%(ids)s::bigint[]) AND token = %(token)s;

-- name: lock
-- Locks those of the jobs that still have the token. A write in the same transaction that leaves one of them as it is was
-- suppressed by a trigger or a rule.
SELECT id FROM {schema}.job WHERE id = ANY (%(ids)s::bigint[]) AND token = %(token)s ORDER BY id FOR UPDATE SKIP LOCKED;

-- name: already_archived
-- The jobs that are in the history with this token; detects an acknowledgement whose answer was lost.
SELECT id FROM {schema}.job_history WHERE id = ANY (%(ids)s::bigint[]) AND token = %(token)s;

-- name: progress
UPDATE {schema}.job SET progress = %(progress)s::jsonb
 WHERE id = ANY (ARRAY (
        SELECT j.id FROM {schema}.job AS j WHERE j.id = %(id)s AND j.token = %(token)s FOR UPDATE SKIP LOCKED))
RETURNING id;
