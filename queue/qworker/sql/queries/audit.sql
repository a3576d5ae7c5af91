-- Reads the audit, and deletes what is too old. The actions themselves write it: see `audit` in fragments.sql.

-- name: find
-- All entries, the newest first.
WITH {audit_bound}
SELECT {audit_columns}
  FROM {schema}.audit AS a
 WHERE {audit_within: a}
 ORDER BY a.at DESC, a.id DESC
 LIMIT %(limit)s;

-- name: find_by_action
-- The newest entries of each action that is wanted. Rows are compared with the action because the planner would otherwise
-- take those of all actions from audit_at, which has the same order, and go through them until it has found enough.
WITH RECURSIVE {audit_bound}, {audit_actions: audit AS e WHERE true}
SELECT {audit_columns}
  FROM wanted
 CROSS JOIN LATERAL (
        SELECT e.* FROM {schema}.audit AS e
         WHERE (e.action, e.at, e.id) < (wanted.action, (SELECT bound.at FROM bound), (SELECT bound.id FROM bound))
           AND (e.action, e.at) >= (wanted.action, (SELECT bound.since FROM bound))
         ORDER BY e.action DESC, e.at DESC, e.id DESC
         LIMIT %(limit)s
       ) AS a
 ORDER BY a.at DESC, a.id DESC
 LIMIT %(limit)s;

-- name: find_by_key
-- The newest entries with a key, and a second one if it is given. More than two wanted things are compared one entry after
-- another; no action has three. The entries in which a job is one of many have no key of the job.
WITH RECURSIVE {audit_bound}, given AS MATERIALIZED (
    SELECT {schema}.audit_key(%(kind)s::text, %(name)s::text) AS key,
           coalesce({schema}.audit_key(%(other_kind)s::text, %(other_name)s::text), '') AS other
), {audit_actions: audit_key AS e WHERE {audit_keyed}}, found AS (
    SELECT few.id, few.at
      FROM wanted
     CROSS JOIN LATERAL (
            SELECT e.id, e.at FROM {schema}.audit_key AS e
             WHERE {audit_keyed} AND e.action = wanted.action AND {audit_within: e}
               AND (NOT %(many)s::boolean OR (SELECT {audit_matching: b} FROM {schema}.audit AS b WHERE b.id = e.id))
             ORDER BY e.at DESC, e.id DESC
             LIMIT %(limit)s
           ) AS few
     UNION ALL
    (SELECT b.id, b.at FROM {schema}.audit_of_bulk(%(job)s::bigint) AS b
      WHERE {audit_within: b} AND {audit_wanted: b} AND {audit_matching: b}
      ORDER BY b.at DESC, b.id DESC
      LIMIT %(limit)s)
)
SELECT {audit_columns}
  FROM (SELECT found.id FROM found ORDER BY found.at DESC, found.id DESC LIMIT %(limit)s) AS newest
 CROSS JOIN LATERAL (SELECT e.* FROM {schema}.audit AS e WHERE e.id = newest.id LIMIT 1) AS a
 ORDER BY a.at DESC, a.id DESC;

-- name: of_request
-- What the request with this name has done, and whether it asked for the same.
SELECT {audit_columns},
       a.request = %(request)s::text AS same
  FROM {schema}.audit AS a
 WHERE substr(a.request, 1, 32) = substr(%(request)s::text, 1, 32);

-- name: record
-- Records an action that no other statement records.
{audit: %(target)s::jsonb, %(jobs)s::integer, %(action)s::text FROM (SELECT 1) AS c};

-- name: delete_old
-- Deletes rows that are more than 400 days old, up to 2,000; returns their number.
SELECT {schema}.delete_old_audit();
