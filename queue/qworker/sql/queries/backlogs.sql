-- What waits in each queue, and what works it off.

-- name: sampled
-- The last sample of each queue, joined with the live nodes that serve it, the workers of those that are not paused, its pause, and what its jobs of the last `recent`
-- seconds took, or else those of the last day. A queue without jobs appears if a node serves it or if it is paused.
WITH sample AS MATERIALIZED (
    SELECT d.queue, d.at, d.available, d.due, d.scheduled, d.running, d.failed, d.oldest, d.exact
      FROM {schema}.depth AS d
     WHERE d.at = (SELECT max(n.at) FROM {schema}.depth AS n) AND d.queue <> ''
), served AS MATERIALIZED (
    SELECT q.queue, sum(CASE WHEN {working: n} THEN n.worker_count ELSE 0 END) AS workers, array_agg(n.name ORDER BY n.name) AS nodes
      FROM {schema}.node AS n
     CROSS JOIN LATERAL (SELECT DISTINCT unnest(n.queues) AS queue) AS q
     WHERE {live: n}
     GROUP BY q.queue
), paused AS MATERIALIZED (
    SELECT {pause_columns} FROM {schema}.queue AS q WHERE q.paused_at IS NOT NULL
), recent AS MATERIALIZED (
    SELECT n.queue, sum(s.run_seconds) AS seconds, {attempts: s} AS attempts
      FROM {schema}.stat AS s
      JOIN {schema}.series AS n ON n.id = s.series
     WHERE s.width = 1 AND s.at >= (SELECT clock_timestamp() - make_interval(secs => %(recent)s::float8))
     GROUP BY n.queue
)
SELECT queue, coalesce(sample.available, 0) AS available, coalesce(sample.due, 0) AS due,
       coalesce(sample.scheduled, 0) AS scheduled, coalesce(sample.running, 0) AS running,
       coalesce(sample.failed, 0) AS failed, sample.oldest, coalesce(sample.exact, true) AS exact,
       coalesce(served.workers, 0) AS workers, coalesce(served.nodes, '{}') AS nodes,
       coalesce(recent.seconds / nullif(recent.attempts, 0),
                CASE WHEN sample.available > 0 OR sample.due > 0 THEN {earlier_mean_run: queue} END) AS mean_run,
       coalesce(recent.attempts, 0) / %(recent)s::float8 AS rate,
       paused.paused_at, paused.paused_by, paused.pause_reason
  FROM sample
  FULL JOIN served USING (queue)
  FULL JOIN paused USING (queue)
  LEFT JOIN recent USING (queue)
 WHERE %(queue)s::text IS NULL OR queue = %(queue)s
 ORDER BY queue;

-- name: sampled_at
-- When the sizes were last sampled, and how long ago (seconds).
SELECT date_part('epoch', max(d.at)) AS at, date_part('epoch', clock_timestamp()) - date_part('epoch', max(d.at)) AS age
  FROM {schema}.depth AS d;
