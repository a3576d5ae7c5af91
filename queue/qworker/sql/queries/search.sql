-- Statements that search for jobs by a filter. `qworker.search` inserts the {condition}, and the {part} of the view `jobs` that
-- can have matching jobs. They run on qworker's own connections, which fix the search_path.

-- name: limit
-- The limit of the next statements of the transaction.
SELECT set_config('statement_timeout', %(statement_timeout)s, true);

-- name: unfinished
NOT j.archived

-- name: ended
j.archived

-- name: all
true

-- name: newest
-- The newest jobs in a range of ids.
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (ARRAY (
        SELECT j.id FROM {schema}.jobs AS j
         WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s AND {condition}
         ORDER BY j.id DESC
         LIMIT %(limit)s))
   AND {part}
 ORDER BY j.id DESC;

-- name: oldest
SELECT {job_columns}
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (ARRAY (
        SELECT j.id FROM {schema}.jobs AS j
         WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s AND {condition}
         ORDER BY j.id
         LIMIT %(limit)s))
   AND {part}
 ORDER BY j.id;

-- name: slowest
-- The jobs in a range of ids whose handlers have run for longest.
SELECT {job_columns}, {run} AS run
  FROM {schema}.jobs AS j
 WHERE j.id = ANY (ARRAY (
        SELECT j.id FROM {schema}.jobs AS j
         WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s AND {run} IS NOT NULL AND {condition}
         ORDER BY {run} DESC, j.id DESC
         LIMIT %(limit)s))
   AND {part}
 ORDER BY {run} DESC, j.id DESC;

-- name: count
-- The number of jobs in a range of ids, up to a limit.
SELECT count(*) FROM (
    SELECT FROM {schema}.jobs AS j
     WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s AND {condition}
     LIMIT %(limit)s) AS counted;

-- name: ids
-- The newest jobs in a range of ids, only their ids.
SELECT j.id FROM {schema}.jobs AS j
 WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s AND {condition}
 ORDER BY j.id DESC
 LIMIT %(limit)s;

-- name: arguments
-- The arguments of some jobs, newest first. The size in storage is known without reading the value; only a small one is expanded.
SELECT j.args::text FROM {schema}.jobs AS j
 WHERE {part} AND j.id = ANY (%(ids)s::bigint[])
   AND CASE WHEN pg_column_size(j.args) <= %(largest)s THEN octet_length(j.args::text) <= %(largest)s ELSE false END
 ORDER BY j.id DESC;

-- name: highest
-- The highest id below another.
SELECT max(j.id) FROM {schema}.jobs AS j WHERE {part} AND j.id < %(high)s;

-- name: lowest
-- The lowest id from another on.
SELECT min(j.id) FROM {schema}.jobs AS j WHERE {part} AND j.id >= %(low)s;

-- name: enqueued
-- When the first job of a range of ids was enqueued, by the clock of the database (seconds since 1970).
SELECT extract(epoch FROM j.enqueued_at)::float8 FROM {schema}.jobs AS j
 WHERE {part} AND j.id >= %(low)s AND j.id < %(high)s
 ORDER BY j.id LIMIT 1;

-- name: few
-- The ids of the jobs that indexes with few entries contain, up to `few` of each index.
SELECT array_agg(s.id ORDER BY s.id) FROM ({sources}) AS s;

-- name: few_failed
(SELECT f.id FROM {schema}.job AS f
  WHERE f.state NOT IN ('scheduled', 'available', 'running') AND f.state = 'failed' LIMIT %(few)s)

-- name: few_running
(SELECT f.id FROM {schema}.job AS f WHERE f.state = 'running' LIMIT %(few)s)

-- name: few_scheduled
(SELECT f.id FROM {schema}.job AS f WHERE f.state = 'scheduled' LIMIT %(few)s)

-- name: few_retrying
-- The order makes the planner prefer the index `job_retrying`.
(SELECT f.id FROM {schema}.job AS f WHERE f.state = 'scheduled' AND f.attempt > 0 ORDER BY f.queue LIMIT %(few)s)

-- name: few_available
(SELECT f.id FROM {schema}.job AS f WHERE f.state = 'available' AND f.queue = ANY (%(queues)s::text[]) LIMIT %(few)s)

-- name: few_with_fingerprint
(SELECT f.id FROM {schema}.job AS f
  WHERE f.fingerprint IS NOT NULL AND f.fingerprint = ANY (%(fingerprints)s::bigint[]) LIMIT %(few)s)

-- name: union
UNION ALL

-- name: failed_below
-- The next failed jobs below an id, by their index.
SELECT f.id FROM {schema}.job AS f
 WHERE f.state NOT IN ('scheduled', 'available', 'running') AND f.state = 'failed' AND f.id < %(high)s
 ORDER BY f.id DESC LIMIT %(limit)s;

-- name: failed_above
SELECT f.id FROM {schema}.job AS f
 WHERE f.state NOT IN ('scheduled', 'available', 'running') AND f.state = 'failed' AND f.id >= %(low)s
 ORDER BY f.id LIMIT %(limit)s;

-- name: only
-- Restricts a search to the jobs that `few` has found.
j.id = ANY (%(only)s::bigint[])
