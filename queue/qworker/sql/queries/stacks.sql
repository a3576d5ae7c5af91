-- Stacks of running jobs: requests, answers, and what becomes of them. An empty notification, which no queue has as its name,
-- makes idle nodes poll at once.

-- name: request
WITH requested AS (
    INSERT INTO {schema}.stack_request (job, node)
    SELECT j.id, j.node FROM {schema}.job AS j
     WHERE j.id = %(job)s AND j.state = 'running' AND j.node IS NOT NULL
    RETURNING id
)
SELECT requested.id, pg_notify('{schema}', '') FROM requested;

-- name: state
-- The state of a job that was not asked, if it exists.
SELECT j.state FROM {schema}.jobs AS j WHERE j.id = %(job)s;

-- name: answer
-- The answer to a request, once there is one.
SELECT r.pid, r.ran::float8, r.worker, r.stacks, r.problem, n.name AS node,
       extract(epoch FROM r.answered_at)::float8 AS read_at
  FROM {schema}.stack_request AS r
  LEFT JOIN {schema}.node AS n ON n.id = r.node
 WHERE r.id = %(id)s AND r.answered_at IS NOT NULL;

-- name: silence
-- What is known of the node that has not answered.
SELECT n.name, (extract(epoch FROM clock_timestamp()) - extract(epoch FROM n.heartbeat_at))::float8
  FROM {schema}.stack_request AS r
  JOIN {schema}.node AS n ON n.id = r.node
 WHERE r.id = %(id)s;

-- name: withdraw
DELETE FROM {schema}.stack_request WHERE id = %(id)s;

-- name: store
-- Answers all requests for a job of a node.
UPDATE {schema}.stack_request
   SET answered_at = clock_timestamp(), pid = %(pid)s, ran = %(ran)s, worker = %(worker)s, stacks = %(stacks)s,
       problem = %(problem)s
 WHERE job = %(job)s AND node = %(node)s AND answered_at IS NULL;

-- name: delete_old
-- Deletes requests that nobody has withdrawn.
DELETE FROM {schema}.stack_request WHERE requested_at < clock_timestamp() - interval '10 minutes';
