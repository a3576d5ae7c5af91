-- name: of_host
-- How long the nodes of a host, or the node of a name, have been silent. The name of a node is HOST:PID.
SELECT n.name, (extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM n.heartbeat_at)::float8) AS silence,
       n.lease_seconds::float8 AS lease
  FROM {schema}.node AS n
 WHERE n.name = %(name)s OR left(n.name, length(%(name)s::text) + 1) = %(name)s::text || ':'
 ORDER BY silence;
