-- Paused nodes. An empty notification, which no queue has as its name, makes the nodes poll at once.

-- name: pause
-- Pauses live nodes that are not paused yet; returns their ids.
WITH paused AS (
    INSERT INTO {schema}.paused_node (node, paused_by, pause_reason)
    SELECT n.id, %(actor)s::text, %(note)s::text
      FROM {schema}.node AS n
     WHERE n.id = ANY (%(nodes)s::bigint[]) AND {live: n}
     ORDER BY n.id
        ON CONFLICT DO NOTHING
    RETURNING node
), audited AS (
    {node_audit: 'node.pause' FROM paused}
)
SELECT paused.node, pg_notify('{schema}', '') FROM paused;

-- name: resume
-- Resumes paused nodes; returns their ids.
WITH resumed AS (
    DELETE FROM {schema}.paused_node WHERE node = ANY (%(nodes)s::bigint[]) RETURNING node
), audited AS (
    {node_audit: 'node.resume' FROM resumed}
)
SELECT resumed.node, pg_notify('{schema}', '') FROM resumed;

-- name: is_paused
-- Whether a node is paused; no row if it is not registered.
SELECT EXISTS (SELECT FROM {schema}.paused_node AS p WHERE p.node = n.id) FROM {schema}.node AS n WHERE n.id = %(node)s;

-- name: pause_of
-- The pause of one node.
SELECT extract(epoch FROM p.paused_at)::float8 AS paused_at, p.paused_by, p.pause_reason
  FROM {schema}.paused_node AS p
 WHERE p.node = %(node)s;
