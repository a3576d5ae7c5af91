-- Statements that read queues, nodes and schedules. They also run on callers' connections, see admin.sql.

-- name: sizes
-- The number of unfinished and failed jobs by queue and state.
SELECT queue, state::text, pg_catalog.count(*) AS jobs FROM {schema}.job GROUP BY queue, state ORDER BY queue, state;

-- name: queues
-- The jobs of each queue by state, the age of its oldest available job, the nodes that serve it, and its pause. A node is
-- live until its lease ends. This is computed in seconds because intervals cannot be infinite before PostgreSQL 17. Of a
-- table of more than `exact` pages about `sampled` pages are read, always the same ones, which stay in memory. What runs, and
-- available jobs while they are few, is then counted by index, from the newest on: an old snapshot keeps dead entries at the
-- beginning of a queue. Only the oldest job is looked for behind them. Without `walk` no index is read, which may take long
-- for these entries; what the nodes have sampled in the last minutes stands for it.
WITH RECURSIVE size AS MATERIALIZED (
    SELECT CASE WHEN t.pages <= %(exact)s THEN 100.0::float8 ELSE 100.0 * %(sampled)s / t.pages END AS percent
      FROM (SELECT pg_catalog.pg_relation_size('{schema}.job'::regclass)
                   / pg_catalog.current_setting('block_size')::bigint AS pages) AS t
), sampled AS MATERIALIZED (
    SELECT j.queue::text, j.state, pg_catalog.count(*) AS jobs,
           pg_catalog.min(j.enqueued_at) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'available') AS oldest
      FROM {schema}.job AS j TABLESAMPLE pg_catalog.system ((SELECT percent FROM size)) REPEATABLE (1)
     GROUP BY j.queue, j.state
), ready (queue) AS (
    (SELECT j.queue::text FROM {schema}.job AS j
      WHERE j.state OPERATOR(pg_catalog.=) 'available' AND (SELECT percent FROM size) < 100 AND %(walk)s
      ORDER BY j.queue DESC, j.priority DESC, j.seq DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT j.queue::text FROM {schema}.job AS j
             WHERE j.state OPERATOR(pg_catalog.=) 'available' AND j.queue < ready.queue
             ORDER BY j.queue DESC, j.priority DESC, j.seq DESC LIMIT 1)
      FROM ready WHERE ready.queue IS NOT NULL
), indexed AS (
    SELECT r.queue, 'available'::{schema}.job_state AS state, few.jobs, few.jobs < %(few)s AS complete, head.oldest
      FROM ready AS r
     CROSS JOIN LATERAL (
            SELECT pg_catalog.count(*) AS jobs
              FROM (SELECT FROM {schema}.job AS j
                     WHERE j.state OPERATOR(pg_catalog.=) 'available' AND j.queue = r.queue
                     ORDER BY j.priority DESC, j.seq DESC
                     LIMIT %(few)s) AS f) AS few
     CROSS JOIN LATERAL (
            SELECT pg_catalog.min(f.enqueued_at) AS oldest
              FROM (SELECT j.enqueued_at FROM {schema}.job AS j
                     WHERE j.state OPERATOR(pg_catalog.=) 'available' AND j.queue = r.queue
                     ORDER BY j.priority, j.seq
                     LIMIT %(few)s) AS f) AS head
     WHERE r.queue IS NOT NULL
    UNION ALL
    SELECT f.queue, 'running', pg_catalog.count(*), pg_catalog.count(*) < 10000, NULL
      FROM (SELECT j.queue::text FROM {schema}.job AS j
             WHERE j.state OPERATOR(pg_catalog.=) 'running' AND (SELECT percent FROM size) < 100 AND %(walk)s LIMIT 10000) AS f
     GROUP BY f.queue
    UNION ALL
    SELECT d.queue, s.state, s.jobs, true,
           CASE WHEN s.state OPERATOR(pg_catalog.=) 'available' THEN d.at - pg_catalog.make_interval(secs => d.oldest) END
      FROM {schema}.depth AS d
     CROSS JOIN LATERAL (VALUES ('available'::{schema}.job_state, d.available), ('running', d.running)) AS s (state, jobs)
     WHERE NOT %(walk)s AND (SELECT percent FROM size) < 100 AND d.queue <> '' AND d.at = (SELECT pg_catalog.max(n.at) FROM {schema}.depth AS n)
       AND d.at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => 900)
), counted AS (
    SELECT queue, state,
           CASE WHEN i.complete THEN i.jobs
                WHEN state OPERATOR(pg_catalog.=) 'running' AND z.percent < 100 AND %(walk)s AND i.jobs IS NULL THEN 0
                ELSE greatest(pg_catalog.round(coalesce(s.jobs, 0) * 100 / z.percent)::bigint, coalesce(i.jobs, 0))
            END AS jobs,
           CASE WHEN i.oldest < s.oldest THEN i.oldest ELSE coalesce(s.oldest, i.oldest) END AS oldest
      FROM sampled AS s
      FULL JOIN indexed AS i USING (queue, state)
     CROSS JOIN size AS z
), held AS (
    SELECT queue, pg_catalog.jsonb_object_agg(state, jobs) AS jobs, pg_catalog.min(oldest) AS oldest FROM counted WHERE jobs > 0 GROUP BY queue
), served AS (
    SELECT queue, pg_catalog.array_agg(n.name ORDER BY n.name) AS nodes
      FROM {schema}.node AS n
     CROSS JOIN LATERAL pg_catalog.unnest(n.queues) AS queue
     WHERE {live: n}
     GROUP BY queue
), paused AS (
    SELECT {pause_columns} FROM {schema}.queue AS q WHERE q.paused_at IS NOT NULL
)
SELECT queue, coalesce(held.jobs, '{}')::text AS jobs,
       CASE WHEN pg_catalog.isfinite(held.oldest)
            THEN greatest(extract(epoch FROM pg_catalog.clock_timestamp() - held.oldest)::float8, 0) END AS oldest_age,
       coalesce(served.nodes, '{}') AS nodes, (SELECT percent FROM size) >= 100 AS exact,
       paused.paused_at, paused.paused_by, paused.pause_reason
  FROM held
  FULL JOIN served USING (queue)
  FULL JOIN paused USING (queue)
 ORDER BY queue;

-- name: size
-- The number of jobs of one queue in some states.
SELECT pg_catalog.count(*) AS jobs FROM {schema}.job
 WHERE queue = %(queue)s AND state OPERATOR(pg_catalog.=) ANY (%(states)s::{schema}.job_state[]);

-- name: nodes
SELECT id, name, version, queues, worker_count, EXISTS (SELECT FROM {schema}.idle_node AS i WHERE i.node = n.id) AS idle,
       extract(epoch FROM started_at)::float8 AS started_at, extract(epoch FROM heartbeat_at)::float8 AS heartbeat_at,
       extract(epoch FROM pg_catalog.clock_timestamp())::float8 - extract(epoch FROM heartbeat_at)::float8 AS heartbeat_age,
       lease_seconds, state::text,
       extract(epoch FROM p.paused_at)::float8 AS paused_at, p.paused_by, p.pause_reason
  FROM {schema}.node AS n
  LEFT JOIN {schema}.paused_node AS p ON p.node = n.id
 ORDER BY name, id;

-- name: schedules
-- A node is live until its lease ends. The schedules of each are read once, not the nodes for each schedule.
WITH declared AS MATERIALIZED (
    SELECT e.schedule, array_agg(DISTINCT n.name ORDER BY n.name) AS nodes
      FROM {schema}.node AS n
     CROSS JOIN LATERAL jsonb_array_elements_text(
               CASE jsonb_typeof(n.state -> 'cron') WHEN 'array' THEN n.state -> 'cron' ELSE '[]' END) AS e (schedule)
     WHERE {live: n}
     GROUP BY e.schedule
)
SELECT c.name, c.task, c.expression, c.timezone, extract(epoch FROM c.last_tick)::float8 AS last_tick,
       extract(epoch FROM c.paused_at)::float8 AS paused_at, c.paused_by, c.pause_reason,
       extract(epoch FROM greatest(coalesce(c.last_tick, c.created_at), c.resumed_at))::float8 AS ticks_after,
       coalesce(d.nodes, ARRAY[]::text[]) AS nodes
  FROM {schema}.cron AS c
  LEFT JOIN declared AS d ON d.schedule = c.name
 ORDER BY c.name;
