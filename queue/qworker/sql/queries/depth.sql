-- The sizes of the queues, sampled for the whole cluster.

-- name: sample
-- Samples the sizes of the queues, unless another node has done so in this period of `interval` seconds, or is doing it. A sample
-- of the future is from before the clock was set back. It is deleted: no other would be taken until then, and it would be the newest.
-- A small table is counted. Of a large one, about `sampled` pages are; what no worker of this node can overlook is then
-- counted exactly in its lanes, up to `counted` jobs each, from their watermarks, and so is the age of the oldest job.
WITH turn AS MATERIALIZED (
    SELECT p.at
      FROM (SELECT date_bin(make_interval(secs => %(interval)s), clock_timestamp(), '2000-01-01 00:00:00+00') AS at) AS p
     WHERE pg_try_advisory_xact_lock(%(first)s, %(second)s)
       AND NOT EXISTS (SELECT FROM {schema}.depth AS d WHERE d.at >= p.at AND d.at < p.at + make_interval(secs => %(interval)s))
), future AS (
    DELETE FROM {schema}.depth AS d
     WHERE d.at >= (SELECT turn.at + make_interval(secs => %(interval)s) FROM turn)
), size AS MATERIALIZED (
    SELECT CASE WHEN t.pages <= %(exact)s THEN 100.0::float8 ELSE 100.0 * %(sampled)s / t.pages END AS percent
      FROM (SELECT pg_relation_size('{schema}.job') / current_setting('block_size')::bigint AS pages) AS t
), counted AS MATERIALIZED (
    SELECT j.queue::text,
           count(*) FILTER (WHERE j.state = 'available') AS available,
           count(*) FILTER (WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp())) AS due,
           count(*) FILTER (WHERE j.state = 'scheduled') AS scheduled,
           count(*) FILTER (WHERE j.state = 'running') AS running,
           count(*) FILTER (WHERE j.state = 'failed') AS failed,
           min(coalesce(j.run_at, j.enqueued_at)) FILTER (WHERE j.state = 'available') AS since
      FROM {schema}.job AS j TABLESAMPLE SYSTEM ((SELECT percent FROM size))
     WHERE EXISTS (SELECT FROM turn)
     GROUP BY j.queue
), lanes AS MATERIALIZED (
    SELECT w.queue, sum(ready.jobs) AS available, bool_and(ready.jobs < %(counted)s) AS complete, min(head.since) AS since
      FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(watermarks)s::bigint[]) AS w (queue, priority, watermark)
     CROSS JOIN LATERAL (
            SELECT count(*) AS jobs
              FROM (SELECT FROM {schema}.job AS j
                     WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority AND j.seq > w.watermark
                     ORDER BY j.seq
                     LIMIT %(counted)s) AS first) AS ready
      LEFT JOIN LATERAL (
            SELECT coalesce(j.run_at, j.enqueued_at) AS since
              FROM {schema}.job AS j
             WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority AND j.seq > w.watermark
             ORDER BY j.seq
             LIMIT 1) AS head ON true
     WHERE (SELECT percent FROM size) < 100 AND EXISTS (SELECT FROM turn)
     GROUP BY w.queue
), queues AS MATERIALIZED (
    SELECT queue,
           CASE WHEN l.complete THEN l.available
                ELSE greatest(round(coalesce(c.available, 0) / s.share), coalesce(l.available, 0)) END AS available,
           round(coalesce(c.due, 0) / s.share) AS due, round(coalesce(c.scheduled, 0) / s.share) AS scheduled,
           round(coalesce(c.running, 0) / s.share) AS running, round(coalesce(c.failed, 0) / s.share) AS failed,
           CASE WHEN isfinite(o.since)
                THEN greatest(date_part('epoch', clock_timestamp()) - date_part('epoch', o.since), 0) END AS oldest
      FROM counted AS c
      FULL JOIN lanes AS l USING (queue)
     CROSS JOIN (SELECT (percent / 100)::numeric AS share FROM size) AS s
     CROSS JOIN LATERAL (SELECT coalesce(l.since, c.since) AS since) AS o
     WHERE c.queue IS NOT NULL OR l.available > 0
)
INSERT INTO {schema}.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
SELECT turn.at, q.queue, q.available, q.due, q.scheduled, q.running, q.failed, q.oldest, (SELECT percent FROM size) >= 100
  FROM turn
 CROSS JOIN (
        SELECT * FROM queues
         UNION ALL
        SELECT '', coalesce(sum(available), 0), coalesce(sum(due), 0), coalesce(sum(scheduled), 0), coalesce(sum(running), 0),
               coalesce(sum(failed), 0), max(oldest)
          FROM queues) AS q
    ON CONFLICT DO NOTHING;

-- name: newest
-- The last sample, without the sum.
SELECT d.queue, d.available, d.due, d.scheduled, d.running, d.failed, d.oldest, d.exact,
       date_part('epoch', d.at) AS at
  FROM {schema}.depth AS d
 WHERE d.at = (SELECT max(n.at) FROM {schema}.depth AS n) AND d.queue <> ''
 ORDER BY d.queue;

-- name: current
-- The sizes now if the table has up to `live` pages, else the last sample. A statement that reads a sample of 100 percent
-- reads the table from its beginning to its end, whatever the settings of the session are.
WITH size AS MATERIALIZED (
    SELECT pg_relation_size('{schema}.job') / current_setting('block_size')::bigint <= %(live)s AS small
), counted AS (
    SELECT j.queue::text,
           count(*) FILTER (WHERE j.state = 'available') AS available,
           count(*) FILTER (WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp())) AS due,
           count(*) FILTER (WHERE j.state = 'scheduled') AS scheduled,
           count(*) FILTER (WHERE j.state = 'running') AS running,
           count(*) FILTER (WHERE j.state = 'failed') AS failed,
           min(coalesce(j.run_at, j.enqueued_at)) FILTER (WHERE j.state = 'available') AS since
      FROM {schema}.job AS j TABLESAMPLE SYSTEM (100)
     WHERE (SELECT small FROM size)
     GROUP BY j.queue
)
SELECT c.queue, c.available, c.due, c.scheduled, c.running, c.failed,
       CASE WHEN isfinite(c.since)
            THEN greatest(date_part('epoch', clock_timestamp()) - date_part('epoch', c.since), 0) END AS oldest,
       true AS exact, date_part('epoch', clock_timestamp()) AS at
  FROM counted AS c
 UNION ALL
SELECT d.queue, d.available, d.due, d.scheduled, d.running, d.failed, d.oldest, d.exact, date_part('epoch', d.at) AS at
  FROM {schema}.depth AS d
 WHERE NOT (SELECT small FROM size) AND d.at = (SELECT max(n.at) FROM {schema}.depth AS n) AND d.queue <> ''
 ORDER BY queue;
