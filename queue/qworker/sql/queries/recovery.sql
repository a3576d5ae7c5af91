-- The statements that settle the jobs of dead workers and dead nodes. Each may run on all nodes at the same time; only one
-- of them takes effect.

-- name: delete_dead_node
-- Declares a node dead if its heartbeat has not changed. The node that deletes the row releases the jobs.
DELETE FROM {schema}.node WHERE id = %(dead)s AND heartbeat = %(heartbeat)s RETURNING id;

-- name: is_silent
SELECT true FROM {schema}.node WHERE id = %(dead)s AND heartbeat = %(heartbeat)s;

-- name: end_sessions
-- Terminates the sessions of a dead process: their queries hold locks until they end.
SELECT pg_terminate_backend(a.pid)
  FROM pg_stat_activity AS a
 WHERE a.usename = current_user AND a.pid <> pg_backend_pid()
   AND right(a.application_name, length(%(tag)s)) = %(tag)s;

-- name: running
-- The running jobs of this node that were claimed after `since`.
SELECT j.id, j.token, extract(epoch FROM j.claimed_at)::float8 AS claimed_at
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node = %(node)s AND j.claimed_at > to_timestamp(%(since)s::float8);

-- name: claim_jobs
-- The jobs of a claim, with the columns that decide their outcome.
SELECT j.id, j.task, j.queue, j.attempt, j.crashes, j.is_hook, j.overrides::text, j.cancel_requested_at IS NOT NULL AS cancelled,
       coalesce({waited: j}, 0) AS waited
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node = %(node)s AND j.token = %(token)s;

-- name: record_crash
-- Makes a job whose worker died available, or schedules it after `delay`. The attempt and the crash are counted.
WITH crashed AS (
    UPDATE {schema}.job AS j
       SET state = CASE WHEN %(delay)s::float8 > 0 THEN 'scheduled'::{schema}.job_state ELSE 'available' END,
           run_at = clock_timestamp() + make_interval(secs => greatest(%(delay)s::float8, 0)),
           crashes = least(j.crashes + 1, 32000), {undo_claim}, {failed_attempt}
     WHERE j.id = ANY (ARRAY (
            {claimed_job: l.id}))
    RETURNING j.id, j.fingerprint, j.task, j.queue
), counted AS (
    {count_error: crashed}
)
SELECT id FROM crashed;

-- name: left
-- Those jobs that have left a claim by the end of their attempts, and how long they had waited if that is still known: jobs in
-- the history with the token (`ended`); those with an error of this attempt that has this time or type, which may have run again
-- and ended since; without a mark, snoozed ones. The state is that after the attempt, as far as it is known.
SELECT h.id, true AS ended, h.state::text, h.duration::float8, {waited: h} AS waited
  FROM {schema}.job_history AS h
 WHERE h.id = ANY (%(ids)s::bigint[]) AND h.token = %(token)s
 UNION ALL
SELECT j.id, false, CASE WHEN j.attempt = e.attempt THEN j.state::text ELSE 'available' END, NULL,
       CASE j.state WHEN 'failed' THEN {waited: j} END
  FROM unnest(%(ids)s::bigint[], %(attempts)s::bigint[], %(marks)s::text[]) AS e (id, attempt, mark)
 CROSS JOIN LATERAL (SELECT l.* FROM {schema}.jobs AS l WHERE l.id = e.id LIMIT 1) AS j
 WHERE CASE WHEN e.mark IS NULL THEN j.state = 'scheduled' AND j.attempt = e.attempt - 1
            ELSE EXISTS (
                SELECT FROM jsonb_array_elements(CASE jsonb_typeof(j.errors) WHEN 'array' THEN j.errors ELSE '[]' END) AS r
                 WHERE r ->> 'attempt' = e.attempt::text AND e.mark IN (r ->> 'at', r ->> 'type')) END;

-- name: release_claim
-- Releases the jobs of a claim, except those in `excluded`: the attempt is not counted and they keep their seq.
UPDATE {schema}.job AS j
   SET state = 'available', {uncounted}, {undo_claim}
 WHERE j.id = ANY (ARRAY (
        SELECT l.id FROM {schema}.job AS l
         WHERE l.state = 'running' AND l.node = %(node)s AND l.token = %(token)s
           AND l.id <> ALL (%(excluded)s::bigint[])
           FOR UPDATE SKIP LOCKED))
RETURNING j.id;

-- name: record_node_loss
-- Releases up to `limit` jobs of a dead node, except those in `excluded`, or the one job of a claim that was running when
-- this node had to stop its workers. The job is not known to be the cause: the loss is counted, the attempt is not. At
-- `max_node_losses` the job fails: its key is freed, and its failure hook is enqueued if the task is in `hooks`.
WITH lost AS (
    UPDATE {schema}.job AS j
       SET state = CASE WHEN j.node_losses + 1 >= %(max_node_losses)s THEN 'failed'::{schema}.job_state ELSE 'available' END,
           failed_at = CASE WHEN j.node_losses + 1 >= %(max_node_losses)s THEN clock_timestamp() END,
           {uncounted}, node_losses = least(j.node_losses + 1, 32000),
           holds_key = j.holds_key AND j.node_losses + 1 < %(max_node_losses)s,
           {undo_claim}, fingerprint = {schema}.fingerprint(j.task, %(error)s::jsonb),
           errors = {schema}.append_error(j.errors, jsonb_build_object(
               'at', clock_timestamp(), 'attempt', j.attempt, 'fingerprint',
               lpad(to_hex({schema}.fingerprint(j.task, %(error)s::jsonb)), 16, '0')) || {attempt: j} || %(error)s::jsonb || {hook_id:
               j.node_losses + 1 >= %(max_node_losses)s AND NOT j.is_hook AND j.task = ANY (%(hooks)s::text[])})
     WHERE j.id = ANY (ARRAY ({lost: %(limit)s::bigint}) || ARRAY (
        {claimed_job: l.id}))
    RETURNING j.id, j.queue, j.task, j.priority, j.state, j.attempt, j.fingerprint,
              (j.errors -> -1 ->> 'hook')::bigint AS hook
), counted AS (
    {count_error: lost}
), freed AS (
    {free_keys: SELECT id FROM lost WHERE state = 'failed'}
), hooks AS (
    {enqueue_hooks: lost}
)
SELECT id, task, queue, attempt, state::text,
       hook IS NULL OR EXISTS (SELECT FROM hooks WHERE hooks.id = lost.hook) AS hook_stored
  FROM lost;

-- name: first_lost
-- The job of a node that `record_node_loss` would update first.
{lost: 1};

-- name: restart_unclaimed
-- Releases running jobs that name no node or no claim. No statement writes such a row, and no worker runs the job.
UPDATE {schema}.job AS j
   SET state = 'available', seq = nextval('{schema}.job_seq'), run_at = clock_timestamp(), {undo_claim}, progress = NULL
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
