-- A worker's statements. Every one that changes a job names the token of the claim: a stale worker writes nothing.
-- Jobs are found on the primary key's path and never by state: the partial index on running jobs fills with dead
-- entries while an old snapshot is held anywhere in the database.

-- name: claim
-- Take up to `limit` jobs: queues in the order given, lower priority first, then the order of becoming available. Jobs
-- that nobody has started in time are passed over; `expire` ends them. Counts that somebody has edited to what cannot be
-- must not stop the queue: one row that overflows would undo every claim.
-- The shape id = ANY (ARRAY (SELECT ...)) stays an index scan even when it was planned on an empty table.
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
RETURNING j.id, j.seq, j.priority, j.queue, j.task, j.args::text, j.attempt, j.crashes::int + j.node_losses AS suspicion, j.flags,
          extract(epoch FROM j.enqueued_at)::float8 AS enqueued_at, j.overrides::text, j.unknown_task_count;

-- name: acknowledge
-- Move finished jobs to the history and free their keys, but for those taken for a period; returns the ids moved. A row
-- that somebody else has locked is left for the next try. Like `hold`, it also runs on the handler's own connection, in
-- whose search_path other roles may create: see enqueue.sql.
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
-- Make sure, until the transaction ends, that nobody else decides about a job of this claim; waits for who does so now.
SELECT j.id FROM {schema}.job AS j WHERE j.id = %(id)s AND j.token = %(token)s FOR UPDATE;

-- name: end_session
-- End the session that may be about to commit the work of a job whose worker has lost the connection to it.
SELECT pg_terminate_backend(a.pid)
  FROM pg_stat_activity AS a
 WHERE a.pid = %(pid)s AND a.usename = current_user
   AND right(a.application_name, length(%(role)s)) = %(role)s;

-- name: end
-- End one job without success ('cancelled', 'discarded'), with the error that goes with it.
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
-- Let a failed attempt run again after `delay` seconds, as counted; it draws a new place when it is due. A job that
-- somebody has cancelled meanwhile, too late to be interrupted, ends instead.
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
-- Put a job off for `delay` seconds and give the attempt back; `bounced` counts a task that this worker does not know.
UPDATE {schema}.job AS j
   SET state = 'scheduled', run_at = clock_timestamp() + make_interval(secs => %(delay)s::float8),
       attempt = greatest(j.attempt, 1) - 1, unknown_task_count = least(j.unknown_task_count + %(bounced)s::int, 32000),
       token = NULL, node = NULL, claimed_at = NULL, progress = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.id = %(id)s AND l.token = %(token)s
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: fail
-- A job has failed for good: keep it for people, free its key, and enqueue its failure hook in the same statement. The
-- error names the hook's job: a hook that no error names was enqueued by somebody else, and is not called. A job
-- that somebody has cancelled meanwhile ends as cancelled, without its hook.
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
-- The last resort for a job whose end the database has refused again and again: it fails, with as little as can be written.
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
-- What a claim has got whose answer could not be read.
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
-- What a claim would have said of a job that `claim_one` has taken.
SELECT j.id, j.seq, j.priority, j.queue, j.task, j.args::text, j.attempt, j.crashes::int + j.node_losses AS suspicion, j.flags,
       extract(epoch FROM j.enqueued_at)::float8 AS enqueued_at, j.overrides::text, j.unknown_task_count
  FROM {schema}.job AS j
 WHERE j.id = %(id)s AND j.token = %(token)s;

-- name: release
-- Hand jobs back unstarted: uncounted, and in their old place.
UPDATE {schema}.job AS j
   SET state = 'available', attempt = greatest(j.attempt, 1) - 1, token = NULL, node = NULL, claimed_at = NULL
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.id = ANY (%(ids)s::bigint[]) AND l.token = %(token)s
         ORDER BY l.id
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: still_claimed
-- Which of these jobs still carry the token: tells a row that somebody has locked from a claim that is over.
SELECT id FROM {schema}.job WHERE id = ANY (%(ids)s::bigint[]) AND token = %(token)s;

-- name: already_archived
-- Which of these jobs have ended in the history under this token: an acknowledgement whose answer was lost.
SELECT id FROM {schema}.job_history WHERE id = ANY (%(ids)s::bigint[]) AND token = %(token)s;

-- name: progress
UPDATE {schema}.job SET progress = %(progress)s::jsonb
 WHERE id = ANY (ARRAY (
        SELECT j.id FROM {schema}.job AS j WHERE j.id = %(id)s AND j.token = %(token)s FOR UPDATE SKIP LOCKED))
RETURNING id;
