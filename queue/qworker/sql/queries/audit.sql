-- Reads the audit, and deletes what is too old. The actions themselves write it: see `audit` in fragments.sql.

-- name: find
-- The newest first, below a given id.
SELECT a.id, extract(epoch FROM a.at)::float8 AS at, a.actor, a.role, a.via, a.address, a.action, a.target::text, a.jobs, a.note
  FROM {schema}.audit AS a
 WHERE (%(target)s::jsonb IS NULL OR a.target @> %(target)s::jsonb)
   AND (%(actor)s::text IS NULL OR a.actor = %(actor)s)
   AND (%(action)s::text IS NULL OR a.action = %(action)s OR pg_catalog.starts_with(a.action, %(action)s || '.'))
   AND (%(since)s::float8 IS NULL OR a.at >= pg_catalog.to_timestamp(%(since)s::float8))
   AND (%(until)s::float8 IS NULL OR a.at < pg_catalog.to_timestamp(%(until)s::float8))
   AND (%(below)s::bigint IS NULL OR a.id < %(below)s)
 ORDER BY a.id DESC
 LIMIT %(limit)s;

-- name: of_request
-- What the request with this name has done, and whether it asked for the same.
SELECT a.id, extract(epoch FROM a.at)::float8 AS at, a.actor, a.role, a.via, a.address, a.action, a.target::text, a.jobs, a.note,
       a.request = %(request)s::text AS same
  FROM {schema}.audit AS a
 WHERE substr(a.request, 1, 32) = substr(%(request)s::text, 1, 32);

-- name: record
-- Records an action that no other statement records.
{audit: %(target)s::jsonb, %(jobs)s::integer, %(action)s::text FROM (SELECT 1) AS c};

-- name: delete_old
-- Deletes rows that are more than 400 days old, up to 10,000; returns their number.
SELECT {schema}.delete_old_audit();
