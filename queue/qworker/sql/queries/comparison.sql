-- What is read of jobs to compare them, beside the jobs themselves.

-- name: circumstances
-- The options of single jobs, which are kept until a job has ended; the name and version of the node, as long as it is registered;
-- and the version that nodes had begun to run last when the job was claimed.
SELECT given.id, j.overrides::text AS overrides, j.id IS NOT NULL AS has_options, n.name AS node, n.version,
       (SELECT d.version FROM {schema}.deployment AS d
         WHERE d.first_seen <= to_timestamp(given.claimed_at) ORDER BY d.first_seen DESC LIMIT 1) AS deployed
  FROM unnest(%(ids)s::bigint[], %(nodes)s::bigint[], %(claimed)s::float8[]) AS given (id, node, claimed_at)
  LEFT JOIN {schema}.job AS j ON j.id = given.id
  LEFT JOIN {schema}.node AS n ON n.id = given.node;
