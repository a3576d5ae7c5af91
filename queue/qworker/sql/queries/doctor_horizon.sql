-- What keeps dead rows from being removed, and write-ahead log from being recycled. Only sessions of the same database
-- hold back its tables; replication slots, prepared transactions and standbys may hold back all.

-- name: old_snapshots
SELECT a.pid, a.usename::text AS role, a.application_name AS application, a.client_addr::text AS client, a.state,
       age(a.backend_xmin) AS transactions,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::float8 AS seconds,
       left(a.query, 200) AS query
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
   AND a.backend_xmin IS NOT NULL AND a.state NOT LIKE 'idle in transaction%%'
   AND coalesce(a.xact_start, a.query_start) < clock_timestamp() - make_interval(secs => %(snapshot_age)s)
 ORDER BY seconds DESC
 LIMIT 20;

-- name: idle_in_transaction
SELECT a.pid, a.usename::text AS role, a.application_name AS application, a.client_addr::text AS client,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS idle_seconds,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
       left(a.query, 200) AS query
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.state LIKE 'idle in transaction%%'
   AND a.state_change < clock_timestamp() - make_interval(secs => %(idle_age)s)
 ORDER BY idle_seconds DESC
 LIMIT 20;

-- name: standby_feedback
SELECT r.pid, r.application_name AS standby, r.client_addr::text AS client, age(r.backend_xmin) AS transactions
  FROM pg_stat_replication AS r
 WHERE age(r.backend_xmin) >= %(feedback_transactions)s
 ORDER BY transactions DESC
 LIMIT 20;

-- name: replication_slots
SELECT * FROM (
    SELECT s.slot_name::text AS slot, s.slot_type AS kind, s.active, s.database::text AS database,
           greatest(age(s.xmin), age(s.catalog_xmin)) AS transactions, s.wal_status,
           pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                           s.restart_lsn)::float8 AS wal_bytes
      FROM pg_replication_slots AS s
     WHERE NOT s.temporary) AS slot
 WHERE wal_bytes >= %(slot_bytes)s OR transactions >= %(slot_transactions)s OR wal_status IN ('unreserved', 'lost')
 ORDER BY wal_bytes DESC NULLS LAST
 LIMIT 20;

-- name: prepared_transactions
SELECT p.gid, p.owner::text AS role, extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS seconds
  FROM pg_prepared_xacts AS p
 WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => %(prepared_age)s)
 ORDER BY p.prepared
 LIMIT 20;
