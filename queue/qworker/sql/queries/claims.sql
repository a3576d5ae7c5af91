-- A worker's statements. Each statement that changes a job checks the token of the claim, so a stale worker cannot write.
-- Claimed jobs are found by primary key and never by state: the partial index on running jobs fills with dead entries
-- while an old snapshot is held anywhere in the database.

-- name: claim
-- Claims up to `limit` jobs. The form id = ANY (ARRAY (SELECT ...)) is executed as an index scan even if it was planned on an
-- empty table.
UPDATE {schema}.job AS j
   SET {begin_claim}
 WHERE j.id = ANY (ARRAY (
        SELECT ready.id
          {ready}))
RETURNING {claimed_columns};

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
    {free_keys: SELECT id FROM done WHERE holds_key}
)
-- Behind CASE, the usual NULL costs no text of an id.
{archive: d.crashes, 'completed',
       CASE WHEN %(durations)s::jsonb IS NULL THEN 0 ELSE coalesce((%(durations)s::jsonb ->> d.id::text)::real, 0) END,
       CASE WHEN %(results)s::jsonb IS NOT NULL THEN %(results)s::jsonb -> d.id::text END, d.errors};

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
-- Moves one job to the history as 'cancelled' or 'discarded', with an error. That of a failure hook is counted; that of a
-- cancelled job has no fingerprint.
WITH done AS (
    DELETE FROM {schema}.job
     WHERE id = ANY (ARRAY (
        {claimed_job: l.id}))
    RETURNING *
), counted AS (
    {count_error: (
        SELECT id, task, queue, {schema}.fingerprint(task, %(error)s::jsonb) AS fingerprint FROM done
         WHERE %(error)s::jsonb -> 'fingerprint' IS NOT NULL)}
), freed AS (
    {free_keys: SELECT id FROM done WHERE holds_key}
)
{archive: d.crashes, %(state)s::{schema}.job_state, %(duration)s::real, NULL, {schema}.append_error(d.errors, %(error)s::jsonb || {attempt: d})};

-- name: retry
-- Schedules the next attempt after `delay` seconds; the job gets a new seq when it is due. If its cancellation was
-- requested too late to interrupt the handler, the job is cancelled instead.
WITH {unless_cancelled}, retried AS (
    UPDATE {schema}.job AS j
       SET state = 'scheduled', run_at = clock_timestamp() + make_interval(secs => %(delay)s::float8),
           {undo_claim}, progress = NULL, {failed_attempt}
     WHERE j.id = %(id)s AND EXISTS (SELECT FROM locked WHERE NOT cancelled)
    RETURNING j.id, j.fingerprint, j.task, j.queue
), counted AS (
    {count_error: retried}
), freed AS (
    {free_keys: SELECT id FROM done WHERE holds_key}
), archived AS (
    {archive: d.crashes, 'cancelled', NULL, NULL, {schema}.append_error(d.errors, %(error)s::jsonb || {attempt: d})}
)
SELECT id, false AS cancelled FROM retried UNION ALL SELECT id, true FROM archived;

-- name: snooze
-- Schedules a job after `delay` seconds without counting the attempt; `unknown_task` is 1 if the worker lacks the task.
UPDATE {schema}.job AS j
   SET state = 'scheduled', run_at = clock_timestamp() + make_interval(secs => %(delay)s::float8),
       {uncounted}, unknown_task_count = least(j.unknown_task_count + %(unknown_task)s::int, 32000),
       {undo_claim}, progress = NULL
 WHERE j.id = ANY (ARRAY (
        {claimed_job: l.id}))
RETURNING j.id;

-- name: fail
-- Marks a job as failed, frees its key, and enqueues its failure hook; returns the id, whether the job was cancelled
-- instead, and false if a trigger suppresses the hook. If the cancellation of the job was requested meanwhile, it ends as
-- cancelled, without its hook.
WITH {unless_cancelled}, failed AS (
    UPDATE {schema}.job AS j
       SET state = 'failed', failed_at = clock_timestamp(), crashes = least(j.crashes + %(crashes)s::int, 32000),
           {end_claim}, holds_key = false, fingerprint = {schema}.fingerprint(j.task, %(error)s::jsonb),
           errors = {schema}.append_error(j.errors, %(error)s::jsonb || {attempt: j} || {hook_id: %(hook)s})
     WHERE j.id = %(id)s AND EXISTS (SELECT FROM locked WHERE NOT cancelled)
    RETURNING j.id, j.queue, j.task, j.priority, j.state, j.fingerprint, (j.errors -> -1 ->> 'hook')::bigint AS hook
), counted AS (
    {count_error: failed}
), freed AS (
    {free_keys: SELECT id FROM failed UNION ALL SELECT id FROM done WHERE holds_key}
), archived AS (
    {archive: least(d.crashes + %(crashes)s::int, 32000), 'cancelled', NULL, NULL,
               {schema}.append_error(d.errors, %(error)s::jsonb || {attempt: d})}
), hooks AS (
    {enqueue_hooks: failed}
)
SELECT f.id, false AS cancelled, f.hook IS NULL OR (SELECT count(*) FROM hooks, LATERAL {schema}.wake(ARRAY[hooks.queue])) > 0 FROM failed AS f
 UNION ALL SELECT a.id, true, true FROM archived AS a;

-- name: give_up
-- The last resort if the database rejects the outcome of a job repeatedly: marks the job as failed, with this error alone.
WITH failed AS (
    UPDATE {schema}.job AS j
       SET state = 'failed', failed_at = clock_timestamp(), {end_claim}, cancel_requested_at = NULL, holds_key = false,
           fingerprint = {schema}.fingerprint(j.task, %(error)s::jsonb), errors = jsonb_build_array(%(error)s::jsonb)
     WHERE j.id = %(id)s AND j.token = %(token)s
    RETURNING j.id, j.fingerprint, j.task, j.queue
), counted AS (
    {count_error: failed}
)
SELECT id FROM failed;

-- name: claim_one
-- Claims jobs without reading them, except those in `excluded`: the error of a claim does not name the row that caused it.
UPDATE {schema}.job AS j
   SET {begin_claim}
 WHERE j.id = ANY (ARRAY (
        SELECT ready.id
          {ready: AND r.id <> ALL (%(excluded)s::bigint[])}))
RETURNING j.id;

-- name: claimed
-- The jobs of a claim whose answer could not be read.
SELECT j.id FROM {schema}.job AS j WHERE j.state = 'running' AND j.node = %(node)s AND j.token = %(token)s;

-- name: first
-- The job that `claim_one` would claim.
SELECT ready.id, w.queue, w.priority
  {ready: AND r.id <> ALL (%(excluded)s::bigint[])};

-- name: read
-- The row that `claim` would have returned for a job claimed by `claim_one`.
SELECT {claimed_columns}
  FROM {schema}.job AS j
 WHERE j.id = %(id)s AND j.token = %(token)s;

-- name: read_names
-- The task, queue and attempt of a claimed job whose whole row cannot be read.
SELECT j.task, j.queue, j.attempt FROM {schema}.job AS j WHERE j.id = %(id)s AND j.token = %(token)s;

-- name: release
-- Releases jobs that were not started: the attempt is not counted and they keep their seq.
UPDATE {schema}.job AS j
   SET state = 'available', {uncounted}, {undo_claim}
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

-- name: existing
SELECT id FROM {schema}.jobs WHERE id = ANY (%(ids)s::bigint[]);

-- name: progress
UPDATE {schema}.job SET progress = %(progress)s::jsonb
 WHERE id = ANY (ARRAY (
        {claimed_job: l.id}))
RETURNING id;
