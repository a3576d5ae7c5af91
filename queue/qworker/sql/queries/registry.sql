-- The statements by which a node keeps itself registered and learns what there is to do.

-- name: register
-- A paused node that was declared dead, and registers again, stays paused.
WITH registered AS (
    INSERT INTO {schema}.node (name, version, queues, worker_count, lease_seconds)
    VALUES (%(name)s, %(version)s, %(queues)s, %(worker_count)s, %(lease_seconds)s)
    RETURNING id
), paused AS (
    INSERT INTO {schema}.paused_node (node, paused_at, paused_by, pause_reason)
    SELECT r.id, to_timestamp(%(paused_at)s::float8), %(paused_by)s::text, %(pause_reason)s::text
      FROM registered AS r
     WHERE %(paused_at)s::float8 IS NOT NULL
)
SELECT registered.id FROM registered;

-- name: renew
-- Renews the lease separately, so that a node keeps its lease if `poll` fails. Returns the new ctid. No row means
-- that the ctid is outdated or that another node has declared this node dead.
{heartbeat};

-- name: find_ctid
SELECT n.ctid::text FROM {schema}.node AS n WHERE n.id = %(node)s;

-- name: mark_idle
-- Enqueueing into a paused queue wakes no node.
INSERT INTO {schema}.idle_node (node, queues)
SELECT n.id, ARRAY (SELECT q FROM unnest(n.queues) AS q WHERE q <> ALL (%(paused)s::text[]))
  FROM {schema}.node AS n
 WHERE n.id = %(node)s AND NOT n.queues <@ %(paused)s::text[]
   AND NOT EXISTS (SELECT FROM {schema}.idle_node AS i WHERE i.node = n.id);

-- name: mark_busy
DELETE FROM {schema}.idle_node WHERE node = %(node)s;

-- name: deregister
DELETE FROM {schema}.node WHERE id = %(node)s;

-- name: poll
-- The work that is waiting: the heartbeats and leases of other nodes, the first job after each watermark or from
-- `scrub_from` to `scrub_to`, when the next job is due, the jobs to cancel, those whose stacks are requested or whose log lines are followed, the paused queues,
-- whether this node is paused, and whether jobs that this
-- node claimed after `since` are still running. If `ctid` matches, the statement also renews the lease. It neither takes
-- nor waits for a lock on a job. `with_writers` adds the transactions that write to the table: a transaction holds this
-- lock from before it gets a seq until it ends. A prepared transaction has no process and may end at any time. `thorough`
-- adds rare cases: dead nodes of running jobs (a claim may commit after its node was declared dead), and whether a job
-- has expired.
WITH renewed AS (
    {heartbeat} AS new_ctid
)
SELECT
    (SELECT renewed.new_ctid FROM renewed) AS ctid,
    nodes.heartbeats,
    nodes.released_seq,
    (SELECT array_agg(least(scrubbed.seq, next.seq) ORDER BY w.lane)
       FROM unnest(%(queues)s::text[], %(priorities)s::smallint[], %(watermarks)s::bigint[])
            WITH ORDINALITY AS w (queue, priority, watermark, lane)
       LEFT JOIN LATERAL (
                SELECT j.seq FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority AND j.seq > w.watermark
                 ORDER BY j.seq LIMIT 1) AS next ON true
       LEFT JOIN LATERAL (
                SELECT j.seq FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = w.queue AND j.priority = w.priority
                   AND j.seq > %(scrub_from)s AND j.seq <= %(scrub_to)s AND %(scrub_from)s < %(scrub_to)s
                 ORDER BY j.seq LIMIT 1) AS scrubbed ON true) AS first_available,
    seq.last_value - 1 + seq.is_called::int AS last_seq,
    CASE WHEN %(with_writers)s THEN ARRAY (
        SELECT DISTINCT CASE WHEN l.pid IS NULL THEN 'prepared' ELSE l.virtualtransaction END
          FROM pg_locks AS l
         WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = '{schema}.job'::regclass
           AND seq.last_value > 0 -- always true; makes the locks be read after the sequence
           AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    ) ELSE '{}' END AS writers,
    (SELECT extract(epoch FROM d.run_at)::float8 - extract(epoch FROM clock_timestamp())::float8
       FROM {schema}.job AS d
      WHERE d.state = 'scheduled' AND d.run_at >= to_timestamp(%(due_from)s::float8)
      ORDER BY d.run_at LIMIT 1) AS due_in,
    (SELECT coalesce(array_agg(c.id), '{}')
       FROM {schema}.job AS c
      WHERE c.cancel_requested_at >= to_timestamp(%(due_from)s::float8) AND c.node = %(node)s) AS cancels,
    ARRAY (SELECT r.job FROM {schema}.stack_request AS r WHERE r.node = %(node)s AND r.answered_at IS NULL ORDER BY r.id LIMIT 20) AS stacks,
    -- Each job is looked up in the index of its id.
    ARRAY (SELECT f.job FROM {schema}.live_log AS f
            WHERE f.requested_at > (SELECT clock_timestamp() - interval '10 s')
              AND (SELECT j.node FROM {schema}.job AS j WHERE j.id = f.job AND j.state = 'running') = %(node)s
            ORDER BY f.job LIMIT 20) AS followed,
    EXISTS (
        SELECT FROM {schema}.job AS h
         WHERE h.state = 'running' AND h.node = %(node)s AND h.claimed_at > to_timestamp(%(since)s::float8)) AS has_running,
    CASE WHEN %(thorough)s THEN (
        WITH RECURSIVE running (node) AS (
            (SELECT j.node FROM {schema}.job AS j WHERE j.state = 'running' ORDER BY j.node LIMIT 1)
            UNION ALL
            SELECT (SELECT j.node FROM {schema}.job AS j
                     WHERE j.state = 'running' AND j.node > running.node ORDER BY j.node LIMIT 1)
              FROM running WHERE running.node IS NOT NULL
        )
        SELECT coalesce(array_agg(node), '{}') FROM running
         WHERE node IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = running.node)
    ) ELSE '{}' END AS dead_nodes,
    CASE WHEN %(thorough)s THEN EXISTS (
        SELECT FROM {schema}.job AS x
         WHERE x.expires_at <= (SELECT clock_timestamp()) AND x.state IN ('available', 'scheduled') AND x.attempt = 0
    ) OR EXISTS (
        SELECT FROM {schema}.job AS y WHERE y.cancel_requested_at IS NOT NULL AND y.state IN ('available', 'scheduled')
    ) ELSE false END AS expired,
    ARRAY (SELECT p.name FROM {schema}.queue AS p WHERE p.name = ANY (%(queues)s::text[]) AND p.paused_at IS NOT NULL) AS paused,
    CASE WHEN nodes.registered THEN EXISTS (SELECT FROM {schema}.paused_node AS u WHERE u.node = %(node)s) END AS node_paused,
    EXISTS (SELECT FROM {schema}.operation AS o WHERE o.state = 'running' AND o.next_at <= (SELECT clock_timestamp())) AS operations,
    extract(epoch FROM clock_timestamp())::float8 AS at,
    extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS duration
  FROM {schema}.job_seq AS seq
 CROSS JOIN (
        SELECT coalesce(jsonb_object_agg(n.id, jsonb_build_object('heartbeat', n.heartbeat, 'lease_seconds', {lease}))
                            FILTER (WHERE n.id <> %(node)s), '{}') AS heartbeats,
               min(n.released_seq) FILTER (WHERE n.released_seq >= 0 AND n.id <> %(node)s) AS released_seq,
               bool_or(n.id = %(node)s) AS registered
          FROM {schema}.node AS n) AS nodes;

-- name: heartbeats
-- The heartbeats and leases of the other nodes, for when `poll` fails.
SELECT n.id, n.heartbeat, {lease}
  FROM {schema}.node AS n
 WHERE n.id <> %(node)s;

-- name: cancels
-- The jobs of this node whose cancellation is requested, for when `poll` fails.
SELECT c.id FROM {schema}.job AS c WHERE c.cancel_requested_at IS NOT NULL AND c.node = %(node)s;

-- name: dead_nodes
-- The dead nodes to which running jobs belong, for when `poll` fails.
SELECT DISTINCT j.node
  FROM {schema}.job AS j
 WHERE j.state = 'running' AND j.node IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = j.node);

-- name: unfinished
-- Whether these queues hold work. A job that waits for its backoff is work; a job enqueued with a delay is not. In a paused
-- queue, and outside the range of priorities that this node claims, only a running job is work.
SELECT EXISTS (
    SELECT FROM unnest(%(queues)s::text[]) AS q
     CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS j
             WHERE j.state = 'available' AND j.queue = q AND j.priority BETWEEN %(first)s AND %(last)s LIMIT 1) AS waiting
     WHERE q <> ALL (%(paused)s::text[])
) OR EXISTS (SELECT FROM {schema}.job AS j WHERE j.state = 'running' AND j.queue = ANY (%(queues)s::text[])
) OR EXISTS (
    SELECT FROM unnest(%(queues)s::text[]) AS q
     CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS j
             WHERE j.state = 'scheduled' AND j.attempt > 0 AND j.queue = q
               AND j.priority BETWEEN %(first)s AND %(last)s LIMIT 1) AS retrying
     WHERE q <> ALL (%(paused)s::text[])
);

-- name: listen
LISTEN {schema};
