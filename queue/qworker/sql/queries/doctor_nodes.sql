-- Nodes, their leases, and the schedules that they declare.

-- name: orphans
-- Running jobs whose node is gone, by node.
SELECT j.node, count(*)::int AS jobs, max({seconds_since: j.claimed_at}) AS seconds,
       (array_agg(j.id ORDER BY j.id))[1:20] AS ids
  FROM (SELECT r.id, r.node, r.claimed_at FROM {schema}.job AS r
         WHERE r.state = 'running' ORDER BY r.node, r.claimed_at LIMIT 10000) AS j
 WHERE NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = j.node)
 GROUP BY j.node
HAVING max({seconds_since: j.claimed_at}) >= %(orphan_age)s
 LIMIT 20;

-- name: silent_nodes
SELECT n.id, n.name, split_part(n.name, ':', 1) AS host, n.lease_seconds::float8 AS lease, silence.seconds,
       (SELECT count(*)::int FROM {schema}.job AS j WHERE j.state = 'running' AND j.node = n.id) AS running,
       EXISTS (SELECT FROM {schema}.node AS o
                WHERE o.id <> n.id AND {live: o}) AS others
  FROM {schema}.node AS n
 CROSS JOIN LATERAL (
        SELECT extract(epoch FROM clock_timestamp() - n.heartbeat_at)::float8 AS seconds) AS silence
 WHERE silence.seconds > greatest(n.lease_seconds / 3, %(silence)s)
 ORDER BY n.name
 LIMIT 50;

-- name: long_node_pauses
SELECT n.id, n.name, {seconds_since: p.paused_at} AS seconds, extract(epoch FROM p.paused_at)::float8 AS paused_at,
       p.paused_by, p.pause_reason
  FROM {schema}.paused_node AS p
  JOIN {schema}.node AS n ON n.id = p.node
 WHERE p.paused_at < clock_timestamp() - make_interval(secs => %(node_pause_age)s) AND {live: n}
 ORDER BY n.name, n.id
 LIMIT 50;

-- name: registrations
-- How many nodes have registered in the last ten minutes, if a node is older than that: ids are consecutive. A node that is
-- one of many is lost in this number, so those that have written statistics are counted by host as well.
SELECT NULL AS host, registered.count AS registrations, live.count AS nodes
  FROM (SELECT count(*)::int AS count FROM {schema}.node AS n) AS live
 CROSS JOIN (
        SELECT (SELECT s.last_value - 1 + s.is_called::int FROM {schema}.node_id_seq AS s)
               - (SELECT max(n.id) FROM {schema}.node AS n
                   WHERE n.started_at < clock_timestamp() - interval '10 minutes') AS count) AS registered
 WHERE registered.count > greatest(%(registrations)s, 3 * live.count)
 UNION ALL
SELECT s.host, s.starts, live.count
  FROM (SELECT s.host, count(*)::int AS starts FROM {schema}.stat_source AS s
         WHERE s.host <> '' AND s.started_at > clock_timestamp() - interval '10 minutes'
         GROUP BY s.host) AS s
 CROSS JOIN LATERAL (
        SELECT count(*)::int AS count FROM {schema}.node AS n WHERE split_part(n.name, ':', 1) = s.host) AS live
 WHERE s.starts > greatest(%(registrations)s, 3 * live.count);

-- name: schedules
SELECT c.name, c.task, c.expression, c.timezone,
       extract(epoch FROM greatest(coalesce(c.last_tick, c.created_at), c.resumed_at))::float8 AS last_tick,
       extract(epoch FROM clock_timestamp())::float8 AS at,
       (SELECT array_agg(n.name ORDER BY n.name) FROM {schema}.node AS n
         WHERE n.state -> 'cron' ? c.name
           AND {live: n}) AS nodes,
       EXISTS (SELECT FROM {schema}.node AS n
                WHERE {live: n}
                  AND n.started_at < clock_timestamp() - interval '1 minute') AS served
  FROM {schema}.cron AS c
 WHERE c.paused_at IS NULL
 ORDER BY c.name;

-- name: clocks
-- The clock of the database, and by how many seconds the live nodes have found theirs to be ahead of it at their last poll.
SELECT NULL AS host, NULL AS node, extract(epoch FROM clock_timestamp())::float8 AS at, NULL::float8 AS ahead,
       NULL::float8 AS uncertain
 UNION ALL
(SELECT DISTINCT ON (c.host) c.host, c.name, c.at, c.ahead, c.uncertain
   FROM (SELECT split_part(n.name, ':', 1) AS host, n.name, extract(epoch FROM n.heartbeat_at)::float8 AS at,
                {json_number: n.state -> 'clock' -> 'ahead'} AS ahead, {json_number: n.state -> 'clock' -> 'uncertain'} AS uncertain
           FROM {schema}.node AS n
          WHERE {live: n}) AS c
  WHERE c.ahead IS NOT NULL AND c.uncertain >= 0
  ORDER BY c.host, c.uncertain);

-- name: timezone_data
-- The versions of the database of time zones on the hosts of live nodes that declare schedules, if a schedule has a zone
-- whose rules may change.
SELECT h.version, array_agg(DISTINCT h.host) AS hosts, max(max(h.version)) OVER () AS newest,
       extract(year FROM clock_timestamp())::int AS year
  FROM (SELECT split_part(n.name, ':', 1) AS host, n.state ->> 'timezones' AS version
          FROM {schema}.node AS n
         WHERE jsonb_typeof(n.state -> 'cron') = 'array' AND n.state -> 'cron' <> '[]'
           AND n.state ->> 'timezones' ~ '^[0-9][0-9][0-9][0-9][a-z]+$'
           AND {live: n}) AS h
 WHERE EXISTS (SELECT FROM {schema}.cron AS c WHERE c.timezone NOT IN ('UTC', 'Etc/UTC'))
 GROUP BY h.version
 ORDER BY h.version;
