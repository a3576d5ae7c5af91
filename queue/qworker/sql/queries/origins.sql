-- Where claimed jobs come from, for tracing. A node without it does not run this.

-- name: read
-- The meta of the jobs that have one, and the trace of the last failed attempt. A failure hook has those of its job.
SELECT j.id, coalesce(j.meta, f.meta)::text AS meta, coalesce(f.errors, j.errors) -> -1 ->> 'traceparent' AS failed,
       j.is_hook AS hook
  FROM {schema}.job AS j
  LEFT JOIN {schema}.job AS f
    ON f.id = CASE WHEN j.is_hook AND j.args ->> 'job' ~ '^\d{1,18}$' THEN (j.args ->> 'job')::bigint END
 WHERE j.id = ANY (%(ids)s::bigint[]) AND (j.meta IS NOT NULL OR j.attempt > 1 OR j.is_hook);
