-- Vacuum, statistics, and the size of tables. `relation` is a table of the schema, a partition of the history included.

-- name: autovacuum
SELECT s.name AS subject, NULL AS relation FROM pg_settings AS s
 WHERE s.name IN ('autovacuum', 'track_counts') AND s.setting = 'off'
 UNION ALL
SELECT 'autovacuum_enabled', c.relname::text
  FROM pg_class AS c
 CROSS JOIN LATERAL unnest(c.reloptions) AS option
 WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r'
   AND option IN ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0', 'autovacuum_enabled=no');

-- name: dead_rows
SELECT s.relname::text AS relation, s.n_dead_tup AS dead, s.n_live_tup AS live,
       extract(epoch FROM clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))::float8 AS seconds,
       (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'autovacuum worker')::int AS busy,
       current_setting('autovacuum_max_workers')::int AS workers
  FROM pg_stat_user_tables AS s
 WHERE s.schemaname = '{schema}' AND s.n_dead_tup > %(dead_rows)s + 0.2 * s.n_live_tup
   AND (greatest(s.last_autovacuum, s.last_vacuum) IS NULL
        OR greatest(s.last_autovacuum, s.last_vacuum) < clock_timestamp() - make_interval(secs => %(vacuum_age)s))
 ORDER BY s.n_dead_tup DESC
 LIMIT 20;

-- name: table_bloat
-- The size of a table, and an estimate of what its live rows need, from the planner's statistics: 28 bytes are the header
-- of a row and its pointer.
SELECT c.relname::text AS relation, pg_relation_size(c.oid) AS bytes, width.needed
  FROM pg_class AS c
 CROSS JOIN LATERAL (
        SELECT (greatest(c.reltuples, 0) * (28 + coalesce(sum(s.avg_width * (1 - s.null_frac)), 100))
                / coalesce((SELECT split_part(o, '=', 2)::float8 / 100 FROM unnest(c.reloptions) AS o
                             WHERE o LIKE 'fillfactor=%%'), 1))::float8 AS needed
          FROM pg_stats AS s WHERE s.schemaname = '{schema}' AND s.tablename = c.relname) AS width
 WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r' AND c.reltuples >= 0
   AND pg_relation_size(c.oid) > %(bloat_bytes)s AND pg_relation_size(c.oid) > 3 * width.needed
 ORDER BY bytes DESC
 LIMIT 20;

-- name: index_bloat
SELECT i.relname::text AS index, t.relname::text AS relation, pg_relation_size(i.oid) AS bytes,
       (40 * greatest(i.reltuples, 0))::float8 AS needed
  FROM pg_index AS x
  JOIN pg_class AS i ON i.oid = x.indexrelid
  JOIN pg_class AS t ON t.oid = x.indrelid
 WHERE i.relnamespace = '{schema}'::regnamespace AND i.relkind = 'i' AND i.reltuples >= 0
   AND pg_relation_size(i.oid) > %(index_bytes)s AND pg_relation_size(i.oid) > 4 * 40 * greatest(i.reltuples, 0)
 ORDER BY bytes DESC
 LIMIT 20;

-- name: wraparound
SELECT c.relname::text AS relation, age(c.relfrozenxid) AS transactions,
       mxid_age(nullif(c.relminmxid::text, '0')::xid) AS multixacts,
       current_setting('autovacuum_freeze_max_age')::bigint AS freeze_age,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_age
  FROM pg_class AS c
 WHERE c.relkind IN ('r', 'm', 't') AND c.relfrozenxid::text <> '0'
   AND (age(c.relfrozenxid) > 1.5 * current_setting('autovacuum_freeze_max_age')::bigint
        OR mxid_age(c.relminmxid) > 1.5 * current_setting('autovacuum_multixact_freeze_max_age')::bigint)
 ORDER BY transactions DESC
 LIMIT 5;

-- name: statistics
-- Tables that were never analyzed. Autovacuum does not analyze the parent of partitions.
SELECT c.relname::text AS relation, coalesce(parts.bytes, pg_relation_size(c.oid)) AS bytes
  FROM pg_class AS c
  LEFT JOIN LATERAL (
        SELECT sum(pg_relation_size(i.inhrelid))::bigint AS bytes FROM pg_inherits AS i WHERE i.inhparent = c.oid) AS parts
    ON c.relkind = 'p'
 WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.reltuples < 0
   AND coalesce(parts.bytes, pg_relation_size(c.oid)) > %(analyzed_bytes)s;

-- name: history_retention
-- A row of each day of the ring that should have been truncated: the ring has 32 days.
SELECT day.number AS day, first.seconds / 86400 AS days,
       (SELECT min(a.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
         WHERE l.relation = to_regclass('{schema}.job_history_' || lpad(day.number::text, 2, '0'))
           AND l.granted AND a.xact_start < clock_timestamp() - interval '10 minutes') AS holder
  FROM generate_series(0, 31) AS day (number)
 CROSS JOIN LATERAL (
        SELECT {seconds_since: h.finished_at} AS seconds
          FROM {schema}.job_history AS h WHERE h.ring_day = day.number LIMIT 1) AS first
 WHERE first.seconds > 86400 * %(history_days)s
 ORDER BY first.seconds DESC;

-- name: checkpoints_17
SELECT c.num_requested AS requested, c.num_timed AS timed,
       extract(epoch FROM clock_timestamp() - c.stats_reset)::float8 AS seconds,
       current_setting('max_wal_size') AS max_wal_size
  FROM pg_stat_checkpointer AS c
 WHERE c.num_requested > greatest(c.num_timed, %(requested)s);

-- name: checkpoints_14
SELECT c.checkpoints_req AS requested, c.checkpoints_timed AS timed,
       extract(epoch FROM clock_timestamp() - c.stats_reset)::float8 AS seconds,
       current_setting('max_wal_size') AS max_wal_size
  FROM pg_stat_bgwriter AS c
 WHERE c.checkpoints_req > greatest(c.checkpoints_timed, %(requested)s);

-- name: wal_size
SELECT sum(w.size)::bigint AS bytes, pg_size_bytes(current_setting('max_wal_size')) AS most FROM pg_ls_waldir() AS w
HAVING sum(w.size) > 3 * pg_size_bytes(current_setting('max_wal_size'));

-- name: data_directory
-- Beside the size of the database, its growth since the oldest measurement of the last eight days (bytes a day).
SELECT current_setting('data_directory') AS directory, now.bytes, host(inet_server_addr()) AS address,
       since.days, ((now.bytes - since.database_bytes) / since.days)::float8 AS growth,
       ((now.schema_bytes - since.schema_bytes) / since.days)::float8 AS schema_growth
  FROM (SELECT pg_database_size(current_database()) AS bytes, {schema_bytes} AS schema_bytes) AS now
  LEFT JOIN LATERAL (
        SELECT s.database_bytes, s.schema_bytes, (extract(epoch FROM clock_timestamp() - s.at) / 86400)::float8 AS days
          FROM {schema}.size AS s
         WHERE s.at BETWEEN clock_timestamp() - interval '8 days' AND clock_timestamp() - interval '20 hours'
         ORDER BY s.at
         LIMIT 1) AS since ON true;
