-- The schema: its version, its objects, its sequences, collations and privileges.

-- name: differences
-- The objects that the applied migrations have created, and that are missing or different now. Of a table that is missing,
-- nothing else is named.
SELECT e.kind, e.relation, e.name, e.value, e.ddl, found.value AS found
  FROM jsonb_to_recordset(%(shipped)s::jsonb)
       AS e (migration int, kind text, relation text, name text, value text, ddl text)
  LEFT JOIN pg_class AS c ON c.relnamespace = '{schema}'::regnamespace AND c.relname = e.relation AND c.relkind IN ('r', 'p')
  LEFT JOIN LATERAL (
        SELECT '' AS value WHERE e.kind = 'table' AND c.oid IS NOT NULL
         UNION ALL
        SELECT '' FROM pg_attribute AS a
         WHERE e.kind = 'column' AND a.attrelid = c.oid AND a.attname = e.name AND NOT a.attisdropped
         UNION ALL
        SELECT '' FROM pg_constraint AS k WHERE e.kind = 'constraint' AND k.conrelid = c.oid AND k.conname = e.name
         UNION ALL
        SELECT concat((SELECT string_agg(pg_get_indexdef(i.indexrelid, n, true), ', ' ORDER BY n)
                         FROM generate_series(1, i.indnkeyatts) AS n),
                      CASE WHEN i.indpred IS NOT NULL THEN ' WHERE' END)
          FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
         WHERE e.kind = 'index' AND i.indrelid = c.oid AND x.relname = e.name
         UNION ALL
        SELECT CASE WHEN g.tgenabled IN ('O', 'A') THEN '' ELSE 'disabled' END FROM pg_trigger AS g
         WHERE e.kind = 'trigger' AND g.tgrelid = c.oid AND g.tgname = e.name
         UNION ALL
        SELECT split_part(o, '=', 2) FROM unnest(c.reloptions) AS o
         WHERE e.kind = 'option' AND split_part(o, '=', 1) = e.name
       ) AS found ON true
 WHERE e.migration IN (SELECT m.number FROM {schema}.migration AS m) AND e.value IS DISTINCT FROM found.value
   AND (c.oid IS NOT NULL OR e.kind = 'table')
 ORDER BY e.relation, e.kind, e.name
 LIMIT 50;

-- name: invalid_indexes
-- Indexes that are not used or not maintained: CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY has failed.
SELECT x.relname::text AS index, t.relname::text AS relation
  FROM pg_index AS i
  JOIN pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_class AS t ON t.oid = i.indrelid
 WHERE t.relnamespace = '{schema}'::regnamespace AND NOT (i.indisvalid AND i.indisready AND i.indislive)
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
 ORDER BY relation, index
 LIMIT 50;

-- name: history_ring
-- The days of the ring that have no partition; whether a detached table of that name exists.
SELECT day.number AS day, to_regclass('{schema}.job_history_' || lpad(day.number::text, 2, '0')) IS NOT NULL AS detached
  FROM generate_series(0, 31) AS day (number)
 WHERE to_regclass('{schema}.job_history') IS NOT NULL
   AND NOT EXISTS (
        SELECT FROM pg_inherits AS i
         WHERE i.inhparent = to_regclass('{schema}.job_history')
           AND i.inhrelid = to_regclass('{schema}.job_history_' || lpad(day.number::text, 2, '0')));

-- name: sequence_limits
-- pg_sequences has no last_value if the role may not read the sequence.
SELECT v.sequencename::text AS sequence, v.last_value, v.max_value AS most, owner.relname::text AS relation,
       a.attname::text AS column
  FROM pg_sequences AS v
  JOIN pg_class AS c ON c.relnamespace = '{schema}'::regnamespace AND c.relname = v.sequencename
  LEFT JOIN pg_depend AS d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
                          AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  LEFT JOIN pg_class AS owner ON owner.oid = d.refobjid
  LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE v.schemaname = '{schema}' AND NOT v.cycle AND v.last_value > 0.8 * v.max_value;

-- name: collation
-- The version of the collation with which the indexes on text were built, and that of the operating system or ICU now.
SELECT d.datname::text AS database, d.datcollversion AS built, pg_database_collation_actual_version(d.oid) AS now
  FROM pg_database AS d
 WHERE d.datname = current_database() AND d.datcollversion IS DISTINCT FROM pg_database_collation_actual_version(d.oid);

-- name: migrations
SELECT coalesce(array_agg(m.number ORDER BY m.number), '{}') AS applied, max(m.needs_code) AS needs_code
  FROM {schema}.migration AS m;

-- name: versions
-- The versions of the live nodes, if they differ.
SELECT array_agg(DISTINCT n.version) AS versions, array_agg(n.name || ': ' || n.version ORDER BY n.name) AS nodes
  FROM {schema}.node AS n
 WHERE {live: n}
HAVING count(DISTINCT n.version) > 1;

-- name: unheld_keys
-- Keys whose jobs have ended, among the first of all. They count no longer, and a node deletes them.
SELECT count(*)::int AS keys
  FROM (SELECT k.job_id FROM {schema}.unique_key AS k WHERE k.expires_at IS NULL ORDER BY k.job_id LIMIT 10000) AS k
  LEFT JOIN LATERAL (SELECT true AS holds FROM {schema}.job AS j WHERE j.id = k.job_id AND j.holds_key LIMIT 1) AS job
    ON true -- an anti-join would read all jobs
 WHERE job.holds IS NULL
HAVING count(*) >= %(keys)s;

-- name: missing_privileges
-- The privileges that a node needs, and that a role lacks as which a process of a node is connected.
SELECT connected.role, array_agg(concat(n.privilege, ' (' || n.column_name || ')', ' on ', coalesce(nullif(n.name, ''), 'the schema'))
                                 ORDER BY n.position) AS privileges
  FROM (SELECT DISTINCT a.usename::text AS role FROM pg_stat_activity AS a
         WHERE a.datname = current_database() AND a.application_name ~ ' (scheduler|worker [0-9]+) #') AS connected
 CROSS JOIN unnest(%(types)s::text[], %(names)s::text[], %(privileges)s::text[], %(columns)s::text[])
       WITH ORDINALITY AS n (type, name, privilege, column_name, position)
 WHERE NOT CASE
       WHEN n.type = 'SCHEMA' THEN has_schema_privilege(connected.role, '{schema}', n.privilege)
       WHEN n.type = 'SEQUENCE' THEN has_sequence_privilege(connected.role, '{schema}.' || n.name, n.privilege)
       WHEN n.type = 'FUNCTION' THEN has_function_privilege(connected.role, ('{schema}.' || n.name)::regproc, n.privilege)
       WHEN n.column_name IS NOT NULL
       THEN has_column_privilege(connected.role, '{schema}.' || n.name, n.column_name, n.privilege)
       ELSE has_table_privilege(connected.role, '{schema}.' || n.name, n.privilege) END
 GROUP BY connected.role;

-- name: corruption
-- Checks the indexes of the schema with the extension amcheck, which may be in any schema: the statement is built here, and
-- ts_stat executes it. A damaged index raises an error. A single row without an index means that the extension is missing.
SELECT e.extname::text AS extension, x.relname::text AS index,
       CASE WHEN x.oid IS NOT NULL THEN
           (SELECT count(*) FROM ts_stat(format(
               'SELECT NULL::tsvector FROM (SELECT %%I.bt_index_check(%%s::regclass, true) OFFSET 0) AS checked',
               n.nspname, x.oid)))
       END AS words
  FROM (SELECT) AS one
  LEFT JOIN pg_extension AS e ON e.extname = 'amcheck'
  LEFT JOIN pg_namespace AS n ON n.oid = e.extnamespace
  LEFT JOIN pg_class AS x ON e.oid IS NOT NULL AND x.relnamespace = '{schema}'::regnamespace AND x.relkind = 'i'
                         AND x.relam = (SELECT m.oid FROM pg_am AS m WHERE m.amname = 'btree')
                         AND EXISTS (SELECT FROM pg_index AS i WHERE i.indexrelid = x.oid AND i.indisvalid);
