-- Queues whose jobs wait, and jobs that fail. Conditions on indexed times use statement_timestamp(), which an index can be
-- searched by; clock_timestamp() is volatile. A node is live until its lease ends.

-- name: waiting_queues
-- The queues with available jobs: up to 1,001 of them are counted, and `seconds` is the time that the job which is first
-- by priority has waited. `workers` are those of the nodes that serve the queue and are not paused, `busy` those of them that
-- run a job, `tasks` what they run.
-- An old snapshot keeps dead entries before the first job of each queue: they are read once, and the count starts there.
WITH RECURSIVE first AS (
    (SELECT j.queue::text, j.priority::smallint, j.seq, coalesce(j.run_at, j.enqueued_at) AS since
       FROM {schema}.job AS j
      WHERE j.state = 'available' ORDER BY j.queue, j.priority, j.seq LIMIT 1)
    UNION ALL
    SELECT later.* FROM first
     CROSS JOIN LATERAL (
            SELECT j.queue::text, j.priority::smallint, j.seq, coalesce(j.run_at, j.enqueued_at)
              FROM {schema}.job AS j
             WHERE j.state = 'available' AND j.queue > first.queue ORDER BY j.queue, j.priority, j.seq LIMIT 1) AS later
), live AS MATERIALIZED (
    SELECT n.id, n.name, n.queues, CASE WHEN {working: n} THEN n.worker_count ELSE 0 END AS worker_count,
           CASE jsonb_typeof(n.state -> 'workers') WHEN 'array' THEN n.state -> 'workers' ELSE '[]' END AS workers
      FROM {schema}.node AS n
     WHERE {live: n}
)
SELECT p.queue, counted.jobs, {seconds_since: p.since} AS seconds,
       served.nodes, served.ids, coalesce(served.workers, 0)::bigint AS workers, busy.busy, busy.tasks
  FROM first AS p
 CROSS JOIN LATERAL (
        SELECT count(*)::int AS jobs
          FROM (SELECT FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = p.queue AND (j.priority, j.seq) >= (p.priority, p.seq)
                 ORDER BY j.priority, j.seq LIMIT 1001) AS waiting) AS counted
 CROSS JOIN LATERAL (
        SELECT array_agg(l.name ORDER BY l.name) AS nodes, array_agg(l.id ORDER BY l.name) AS ids, sum(l.worker_count) AS workers
          FROM live AS l WHERE p.queue = ANY (l.queues)) AS served
 CROSS JOIN LATERAL (
        SELECT count(*)::int AS busy, array_agg(w ->> 'task') AS tasks
          FROM live AS l CROSS JOIN LATERAL jsonb_array_elements(l.workers) AS w
         WHERE p.queue = ANY (l.queues) AND l.worker_count > 0 AND w ? 'job') AS busy
 WHERE NOT EXISTS (SELECT FROM {schema}.queue AS q WHERE q.name = p.queue AND q.paused_at IS NOT NULL);

-- name: long_pauses
SELECT {pause_columns}, extract(epoch FROM clock_timestamp() - q.paused_at)::float8 AS seconds
  FROM {schema}.queue AS q
 WHERE q.paused_at < clock_timestamp() - make_interval(secs => %(pause_age)s)
 ORDER BY q.name
 LIMIT 50;

-- name: unknown_tasks
-- Jobs that a worker has put back because it does not know their task, among the 10,000 that are due first.
SELECT s.task, count(*)::int AS jobs, (array_agg(s.id ORDER BY s.id))[1:50] AS ids,
       array_agg(DISTINCT s.queue) AS queues
  FROM (SELECT j.id, j.task::text, j.queue::text, j.unknown_task_count FROM {schema}.job AS j
         WHERE j.state = 'scheduled' ORDER BY j.run_at LIMIT 10000) AS s
 WHERE s.unknown_task_count > 0
 GROUP BY s.task
 ORDER BY jobs DESC
 LIMIT 20;

-- name: not_promoted
SELECT count(*)::int AS jobs, max(late.seconds) AS seconds,
       (SELECT count(*)::int FROM {schema}.node AS n
         WHERE {live: n}) AS nodes
  FROM (SELECT {seconds_since: j.run_at} AS seconds
          FROM {schema}.job AS j
         WHERE j.state = 'scheduled' AND j.run_at < statement_timestamp() - make_interval(secs => %(late)s)
         ORDER BY j.run_at LIMIT 1001) AS late
HAVING count(*) > 0;

-- name: crashes
-- Failed jobs of the last day that have killed workers, among the newest 5,000.
SELECT f.task, count(*)::int AS jobs, (array_agg(f.id ORDER BY f.id DESC))[1:50] AS ids,
       mode() WITHIN GROUP (ORDER BY f.cause) AS cause
  FROM (SELECT j.id, j.task::text, j.crashes, CASE WHEN j.crashes > 0 THEN j.errors -> -1 ->> 'cause' END AS cause
          FROM {schema}.job AS j
         WHERE j.state NOT IN ('scheduled', 'available', 'running')
           AND j.failed_at > statement_timestamp() - interval '1 day'
         ORDER BY j.failed_at DESC LIMIT 5000) AS f
 WHERE f.crashes > 0
 GROUP BY f.task
 ORDER BY jobs DESC
 LIMIT 20;

-- name: failures
-- Tasks with many failures in the last hour, compared with the average hour of the day before; the newest 10,000. Beside
-- them, the group of errors to which most of the last hour belong.
WITH f AS MATERIALIZED (
    SELECT j.task::text, j.fingerprint, {seconds_since: j.failed_at} AS seconds
      FROM {schema}.job AS j
     WHERE j.state NOT IN ('scheduled', 'available', 'running')
       AND j.failed_at > statement_timestamp() - interval '1 day'
     ORDER BY j.failed_at DESC
     LIMIT 10000
), flood AS (
    SELECT f.task, count(*) FILTER (WHERE f.seconds <= 3600)::int AS jobs,
           (count(*) FILTER (WHERE f.seconds > 3600) / 23.0)::float8 AS usual
      FROM f
     GROUP BY f.task
    HAVING count(*) FILTER (WHERE f.seconds <= 3600)
           >= greatest(%(failures)s, 3 * count(*) FILTER (WHERE f.seconds > 3600) / 23.0)
     ORDER BY jobs DESC
     LIMIT 20
)
SELECT flood.*, most.jobs AS same, most.fingerprint, g.type, left(g.message, 100) AS message
  FROM flood
  LEFT JOIN LATERAL (
        SELECT f.fingerprint, count(*)::int AS jobs
          FROM f
         WHERE f.task = flood.task AND f.seconds <= 3600 AND f.fingerprint IS NOT NULL
         GROUP BY f.fingerprint
         ORDER BY count(*) DESC
         LIMIT 1) AS most ON true
  LEFT JOIN {schema}.error_group AS g ON g.fingerprint = most.fingerprint
 ORDER BY flood.jobs DESC;

-- name: retry_storms
-- Queues in which many jobs wait for their next attempt; up to 10,001 of each are counted.
WITH RECURSIVE present (queue) AS (
    (SELECT j.queue::text FROM {schema}.job AS j WHERE j.state = 'scheduled' AND j.attempt > 0 ORDER BY j.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT j.queue FROM {schema}.job AS j
             WHERE j.state = 'scheduled' AND j.attempt > 0 AND j.queue > present.queue ORDER BY j.queue LIMIT 1)
      FROM present WHERE present.queue IS NOT NULL
)
SELECT p.queue, counted.jobs, served.workers
  FROM present AS p
 CROSS JOIN LATERAL (
        SELECT count(*)::int AS jobs
          FROM (SELECT FROM {schema}.job AS j
                 WHERE j.state = 'scheduled' AND j.attempt > 0 AND j.queue = p.queue LIMIT 10001) AS waiting) AS counted
 CROSS JOIN LATERAL (
        SELECT coalesce(sum(n.worker_count), 0)::bigint AS workers
          FROM {schema}.node AS n
         WHERE p.queue = ANY (n.queues)
           AND {working: n}) AS served
 WHERE p.queue IS NOT NULL AND counted.jobs >= greatest(%(retrying)s, 20 * served.workers)
   AND NOT EXISTS (SELECT FROM {schema}.queue AS q WHERE q.name = p.queue AND q.paused_at IS NOT NULL);

-- name: ignored_cancellations
SELECT j.id, j.task::text, {seconds_since: j.cancel_requested_at} AS seconds,
       n.name AS node, split_part(n.name, ':', 1) AS host, worker.pid
  FROM {schema}.job AS j
  LEFT JOIN {schema}.node AS n ON n.id = j.node
  LEFT JOIN LATERAL (
        SELECT w ->> 'pid' AS pid
          FROM jsonb_array_elements(
                   CASE jsonb_typeof(n.state -> 'workers') WHEN 'array' THEN n.state -> 'workers' ELSE '[]' END) AS w
         WHERE w ->> 'job' = j.id::text LIMIT 1) AS worker ON true
 WHERE j.cancel_requested_at < statement_timestamp() - make_interval(secs => %(cancel_age)s) AND j.state = 'running'
 ORDER BY j.cancel_requested_at
 LIMIT 20;

-- name: long_runs
-- Jobs that have been running for long, with the bucket of run times below which 99 %% of the runs of their queue and task in
-- the last seven days were, and the number of these runs. A bucket b ends at 2^((b - 15) / 4) ms.
SELECT j.id, j.task, j.seconds, n.name AS node, usual.runs, (2 ^ ((usual.bucket - 15) / 4.0) / 1000)::float8 AS most
  FROM (SELECT r.id, r.task::text, r.queue::text, r.node, {seconds_since: r.claimed_at} AS seconds
          FROM {schema}.job AS r
         WHERE r.state = 'running' AND r.claimed_at < statement_timestamp() - make_interval(secs => %(long_run)s)
           AND r.cancel_requested_at IS NULL -- ignored_cancellations has the others
         ORDER BY r.node, r.claimed_at
         LIMIT 50) AS j
 CROSS JOIN LATERAL (
        SELECT summed.bucket, summed.total::int AS runs
          FROM (SELECT b.bucket, sum(b.runs) OVER (ORDER BY b.bucket) AS upto, sum(b.runs) OVER () AS total
                  FROM (SELECT u.bucket, u.number AS runs
                          FROM (SELECT sum(s.run_histogram) AS histogram
                                  FROM {schema}.series AS e
                                  JOIN {schema}.stat AS s ON s.series = e.id
                                 WHERE e.queue = j.queue AND e.task = j.task AND s.width IN (1, 10, 60)
                                   AND s.at > statement_timestamp() - interval '7 days') AS h
                         CROSS JOIN LATERAL {schema}.buckets(h.histogram) AS u) AS b) AS summed
         WHERE summed.upto >= 0.99 * summed.total
         ORDER BY summed.bucket
         LIMIT 1) AS usual
  LEFT JOIN {schema}.node AS n ON n.id = j.node
 WHERE usual.runs >= 100 AND j.seconds > 10 * 2 ^ ((usual.bucket - 15) / 4.0) / 1000
 ORDER BY j.seconds DESC
 LIMIT 20;
