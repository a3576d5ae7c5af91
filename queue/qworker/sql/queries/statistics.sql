-- What the nodes have counted, for reports and charts. Counts are up to two minutes late.

-- name: totals
-- The counts of the `period` seconds before `until`, or before now, by queue and task, or by queue. Whole days are read from
-- `stat_total`, and what is left at both ends from `stat`. The days of the last 25 hours are not in one row yet: a period
-- that begins there has whole hours. They are added in two steps, so that a generic plan groups the many rows by a column
-- whose values the planner takes to be few, and does not sort them.
WITH span AS MATERIALIZED (
    SELECT t.since, coalesce(%(until)s::timestamptz, 'infinity') AS until,
           date_bin(p.part, t.since + p.part - interval '1 microsecond', '2000-01-01 00:00:00+00') AS first,
           coalesce(date_bin('1 day', %(until)s::timestamptz, '2000-01-01 00:00:00+00'), 'infinity') AS last
      FROM (SELECT coalesce(%(until)s::timestamptz, statement_timestamp()) - make_interval(secs => %(period)s::float8) AS since) AS t
     CROSS JOIN LATERAL (
            SELECT CASE WHEN %(until)s::timestamptz IS NULL AND t.since > statement_timestamp() - interval '25 hours'
                        THEN interval '1 hour' ELSE interval '1 day' END AS part) AS p
), part AS MATERIALIZED (
    SELECT p.series, {sums}
      FROM (SELECT s.series, {kept_counts} FROM {schema}.stat AS s
             WHERE s.width IN (1, 10, 60) AND s.at >= (SELECT since FROM span) AND s.at < (SELECT least(first, until) FROM span)
             UNION ALL
            SELECT s.series, {kept_counts} FROM {schema}.stat AS s
             WHERE s.width IN (1, 10, 60) AND s.at >= (SELECT greatest(first, last) FROM span) AND s.at < (SELECT until FROM span)
             UNION ALL
            SELECT s.series, {kept_counts} FROM {schema}.stat_total AS s
             WHERE s.width IN (1, 10, 60, 1440) AND s.at >= (SELECT first FROM span) AND s.at < (SELECT last FROM span)) AS p
     WHERE %(queue)s::text IS NULL AND %(task)s::text IS NULL OR p.series = ANY (ARRAY (
            SELECT n.id FROM {schema}.series AS n
             WHERE (%(queue)s::text IS NULL OR n.queue = %(queue)s) AND (%(task)s::text IS NULL OR n.task = %(task)s)))
     GROUP BY p.series
), counted AS (
    SELECT n.queue, CASE WHEN %(by_task)s THEN n.task END AS task, {sums}
      FROM part AS p
      JOIN {schema}.series AS n ON n.id = p.series
     GROUP BY 1, 2
)
SELECT queue, task, {statistics_columns} FROM counted ORDER BY queue, task;

-- name: points
-- The counts of a queue, or of all together, in the `period` seconds before `until`, or before now, in periods of `step`
-- seconds. Periods without counts are missing.
WITH counted AS (
    SELECT date_bin(make_interval(secs => %(step)s::float8), p.at, '2000-01-01 00:00:00+00') AS at, {sums}
      FROM {schema}.stat_queue AS p
     WHERE p.queue = coalesce(%(queue)s::text, '')
       AND p.at >= (SELECT coalesce(%(until)s::timestamptz, statement_timestamp()) - make_interval(secs => %(period)s::float8))
       AND p.at < (SELECT coalesce(%(until)s::timestamptz, 'infinity'))
     GROUP BY 1
)
SELECT date_part('epoch', counted.at) AS at, {statistics_columns} FROM counted ORDER BY counted.at;

-- name: points_of_task
-- The same of a task, in a queue or in all.
WITH part AS MATERIALIZED (
    SELECT p.at, {sums}
      FROM {schema}.stat AS p
     WHERE p.width IN (1, 10, 60) AND p.at >= (SELECT coalesce(%(until)s::timestamptz, statement_timestamp()) - make_interval(secs => %(period)s::float8))
       AND p.at < (SELECT coalesce(%(until)s::timestamptz, 'infinity'))
       AND p.series = ANY (ARRAY (
            SELECT n.id FROM {schema}.series AS n WHERE (%(queue)s::text IS NULL OR n.queue = %(queue)s) AND n.task = %(task)s))
     GROUP BY p.at
), counted AS (
    SELECT date_bin(make_interval(secs => %(step)s::float8), p.at, '2000-01-01 00:00:00+00') AS at, {sums}
      FROM part AS p
     GROUP BY 1
)
SELECT date_part('epoch', counted.at) AS at, {statistics_columns} FROM counted ORDER BY counted.at;

-- name: depths
-- The samples of the `period` seconds before `until`, or before now, the last one of each `step` seconds: of a queue, or of all
-- queues together. Each is looked up by itself: a week has 40,320 samples.
WITH span AS MATERIALIZED (
    SELECT t.until - make_interval(secs => %(period)s::float8) AS since, t.until, make_interval(secs => %(step)s::float8) AS step
      FROM (SELECT coalesce(%(until)s::timestamptz, clock_timestamp()) AS until) AS t
)
SELECT date_part('epoch', p.at) AS at, d.queue, d.available, d.due, d.scheduled, d.running, d.failed, d.oldest, d.exact
  FROM span
 CROSS JOIN LATERAL generate_series(date_bin(span.step, span.since, '2000-01-01 00:00:00+00'), span.until, span.step) AS p (at)
 CROSS JOIN LATERAL (
        SELECT s.* FROM {schema}.depth AS s
         WHERE s.queue = %(queue)s::text AND s.at >= greatest(p.at, span.since) AND s.at < least(p.at + span.step, span.until)
         ORDER BY s.at DESC
         LIMIT 1) AS d
 ORDER BY p.at;

-- name: deployments
-- The versions that nodes have begun to run in the `period` seconds before `until`, or before now.
SELECT d.version, date_part('epoch', d.first_seen) AS at
  FROM {schema}.deployment AS d
 WHERE d.first_seen >= (SELECT coalesce(%(until)s::timestamptz, clock_timestamp()) - make_interval(secs => %(period)s::float8))
   AND d.first_seen < (SELECT coalesce(%(until)s::timestamptz, 'infinity'))
 ORDER BY d.first_seen;

-- name: names
-- The queues and tasks that have been counted.
SELECT s.queue, s.task FROM {schema}.series AS s ORDER BY s.queue, s.task;

-- name: load
-- The load of each queue that holds jobs or is served by a live node, and of the one that is asked for: its jobs, counted up to `most`, the age of its oldest
-- job that is ready, and what the jobs of the last `recent` seconds took, or else those of the last day. What is counted has the order of an index only for the
-- planner: without it, a session that allows sequential scans may read the table from its beginning, to find `most` rows soon.
-- They are counted from the newest on, because an old snapshot keeps dead entries at the beginning of a queue; only the oldest
-- job is looked for behind them. Without `walk` nothing is counted: what the nodes have sampled in the last minute stands for
-- it, or else a sample of about `sampled` pages of the table.
WITH RECURSIVE ready (queue) AS (
    (SELECT j.queue::text FROM {schema}.job AS j WHERE j.state = 'available' AND %(walk)s
      ORDER BY j.queue DESC, j.priority DESC, j.seq DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT j.queue::text FROM {schema}.job AS j
             WHERE j.state = 'available' AND j.queue < ready.queue ORDER BY j.queue DESC, j.priority DESC, j.seq DESC LIMIT 1)
      FROM ready WHERE ready.queue IS NOT NULL
), newest AS MATERIALIZED (
    SELECT d.queue, d.available, d.due, d.running, d.oldest
      FROM {schema}.depth AS d
     WHERE d.at = (SELECT max(n.at) FROM {schema}.depth AS n) AND d.queue <> '' AND d.at > statement_timestamp() - interval '1 minute'
), sampled AS MATERIALIZED (
    SELECT j.queue::text, round(count(*) FILTER (WHERE j.state = 'available') / s.share) AS available,
           round(count(*) FILTER (WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp())) / s.share) AS due,
           round(count(*) FILTER (WHERE j.state = 'running') / s.share) AS running,
           date_part('epoch', clock_timestamp())
           - date_part('epoch', min(coalesce(j.run_at, j.enqueued_at)) FILTER (WHERE j.state = 'available')) AS oldest
      FROM (SELECT least(%(sampled)s * current_setting('block_size')::numeric / greatest(pg_relation_size('{schema}.job'), 1), 1) AS share) AS s
     CROSS JOIN LATERAL (
            SELECT t.* FROM {schema}.job AS t TABLESAMPLE SYSTEM (100 * s.share) REPEATABLE (1)
             WHERE NOT %(walk)s AND NOT EXISTS (SELECT FROM newest)) AS j
     GROUP BY j.queue, s.share
), estimated AS (
    SELECT queue, available, due, running, oldest FROM newest WHERE NOT %(walk)s
     UNION ALL
    SELECT queue, available, due, running, oldest FROM sampled
), waiting AS MATERIALIZED (
    SELECT r.queue, counted.jobs AS available, greatest(date_part('epoch', clock_timestamp()) - lanes.since, 0) AS oldest
      FROM ready AS r
     CROSS JOIN LATERAL (
            SELECT count(*) AS jobs
              FROM (SELECT FROM {schema}.job AS j
                     WHERE j.state = 'available' AND j.queue = r.queue
                     ORDER BY j.priority DESC, j.seq DESC
                     LIMIT %(most)s) AS last
           ) AS counted
     CROSS JOIN LATERAL (
            SELECT date_part('epoch', min(head.since)) AS since
              FROM generate_series(-95, 105) AS p (priority)
             CROSS JOIN LATERAL (
                    SELECT coalesce(j.run_at, j.enqueued_at) AS since FROM {schema}.job AS j
                     WHERE j.state = 'available' AND j.queue = r.queue AND j.priority = p.priority
                     ORDER BY j.seq LIMIT 1) AS head) AS lanes
     WHERE r.queue IS NOT NULL
    UNION ALL
    SELECT queue, available, greatest(oldest, 0) FROM estimated WHERE available > 0
), due AS MATERIALIZED (
    SELECT first.queue, count(*) AS jobs
      FROM (SELECT j.queue::text FROM {schema}.job AS j
             WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp()) AND %(walk)s
             ORDER BY j.run_at
             LIMIT %(most)s) AS first
     GROUP BY first.queue
    UNION ALL
    SELECT queue, due FROM estimated WHERE due > 0
), running AS MATERIALIZED (
    SELECT first.queue, count(*) AS jobs
      FROM (SELECT j.queue::text FROM {schema}.job AS j
             WHERE j.state = 'running' AND %(walk)s
             ORDER BY j.node, j.claimed_at
             LIMIT %(most)s) AS first
     GROUP BY first.queue
    UNION ALL
    SELECT queue, running FROM estimated WHERE running > 0
), served AS MATERIALIZED (
    SELECT q.queue, sum(n.worker_count) AS workers
      FROM {schema}.node AS n
     CROSS JOIN LATERAL (SELECT DISTINCT unnest(n.queues) AS queue) AS q
     WHERE {working: n}
     GROUP BY q.queue
), recent AS MATERIALIZED (
    SELECT n.queue, sum(s.run_seconds) AS seconds, {attempts: s} AS attempts
      FROM {schema}.stat AS s
      JOIN {schema}.series AS n ON n.id = s.series
     WHERE s.width = 1 AND s.at >= (SELECT clock_timestamp() - make_interval(secs => %(recent)s::float8))
     GROUP BY n.queue
)
SELECT queue, coalesce(CASE WHEN %(walk)s AND waiting.available >= %(most)s
                           THEN greatest(waiting.available, (SELECT n.available FROM newest AS n WHERE n.queue = waiting.queue))
                           ELSE waiting.available END, 0)::bigint AS available,
       coalesce(due.jobs, 0)::bigint AS due, coalesce(running.jobs, 0)::bigint AS running,
       CASE WHEN waiting.oldest < 'infinity' THEN waiting.oldest END AS oldest, coalesce(served.workers, 0) AS workers,
       coalesce(recent.seconds / nullif(recent.attempts, 0),
                CASE WHEN waiting.available > 0 OR due.jobs > 0 THEN {earlier_mean_run: queue} END) AS mean_run,
       coalesce(recent.attempts, 0) / %(recent)s::float8 AS rate
  FROM waiting
  FULL JOIN due USING (queue)
  FULL JOIN running USING (queue)
  FULL JOIN served USING (queue)
  FULL JOIN (SELECT %(queue)s::text AS queue WHERE %(queue)s::text IS NOT NULL) AS asked USING (queue)
  LEFT JOIN recent USING (queue)
 WHERE %(queue)s::text IS NULL OR queue = %(queue)s
 ORDER BY queue;
