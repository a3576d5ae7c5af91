-- Connections, locks, notifications, and settings of the server, the database and the roles.

-- name: connections
-- The number of sessions and its limits. pg_stat_database counts them for every role. `needed` is what the live nodes use
-- when all their processes are connected.
SELECT used.sessions, limits.most,
       (SELECT coalesce(sum(2 * n.worker_count::bigint + 2), 0)::bigint FROM {schema}.node AS n
         WHERE {live: n}) AS needed,
       limits.scope, limits.name
  FROM (SELECT 'server' AS scope, '' AS name,
               current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0) AS most
         UNION ALL
        SELECT 'role', r.rolname::text, r.rolconnlimit FROM pg_roles AS r
         WHERE r.rolname = current_user AND r.rolconnlimit >= 0 AND NOT r.rolsuper
         UNION ALL
        SELECT 'database', d.datname::text, d.datconnlimit FROM pg_database AS d
         WHERE d.datname = current_database() AND d.datconnlimit >= 0) AS limits
 CROSS JOIN LATERAL (
        SELECT CASE limits.scope
               WHEN 'server' THEN (SELECT sum(s.numbackends) FROM pg_stat_database AS s WHERE s.datid > 0)
               WHEN 'database' THEN (SELECT s.numbackends FROM pg_stat_database AS s WHERE s.datname = current_database())
               ELSE (SELECT count(*) FROM pg_stat_activity AS a WHERE a.usename = limits.name)
               END::int AS sessions) AS used;

-- name: backend
SELECT pg_backend_pid() AS pid;

-- name: notification_queue
-- How full the queue of notifications is, and the transaction that is most likely to keep it from being emptied.
SELECT usage.share, oldest.*
  FROM (SELECT pg_notification_queue_usage() AS share) AS usage
  LEFT JOIN LATERAL (
        SELECT a.pid, a.usename::text AS role, a.application_name AS application, a.client_addr::text AS client,
               extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
          FROM pg_stat_activity AS a
         WHERE a.xact_start IS NOT NULL AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
         ORDER BY a.xact_start
         LIMIT 1) AS oldest ON true
 WHERE usage.share >= %(notification_share)s;

-- name: synchronous_standbys
SELECT current_setting('synchronous_standby_names') AS names,
       (SELECT count(*) FROM pg_stat_activity AS a WHERE a.wait_event = 'SyncRep')::int AS waiting
 WHERE current_setting('synchronous_standby_names') <> ''
   AND NOT pg_is_in_recovery()
   AND NOT EXISTS (SELECT FROM pg_stat_replication AS r WHERE r.sync_state IN ('sync', 'quorum'));

-- name: server_settings
-- Settings of the whole server, whatever roles and databases set.
SELECT s.name, s.setting AS value
  FROM pg_settings AS s
 WHERE s.name IN ('fsync', 'full_page_writes');

-- name: settings
-- Settings of roles and databases that apply here, and those of this role that come from the configuration of the server.
-- qworker changes some of them in its own sessions; reset_val is the value before that.
SELECT parts[1] AS name, parts[2] AS value, r.rolname::text AS role, d.datname::text AS database
  FROM pg_db_role_setting AS s
 CROSS JOIN LATERAL unnest(s.setconfig) AS setting
 CROSS JOIN LATERAL regexp_match(setting, '^([^=]+)=(.*)$') AS parts
  LEFT JOIN pg_roles AS r ON r.oid = s.setrole
  LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
 WHERE (s.setdatabase = 0 OR d.datname = current_database())
   AND parts[1] IN ('synchronous_commit', 'default_transaction_read_only', 'default_transaction_isolation',
                    'idle_session_timeout', 'transaction_timeout', 'statement_timeout', 'lock_timeout')
 UNION ALL
SELECT g.name, g.reset_val, NULL, NULL
  FROM pg_settings AS g
 WHERE g.name IN ('synchronous_commit', 'default_transaction_read_only', 'default_transaction_isolation',
                  'idle_session_timeout', 'transaction_timeout')
   AND NOT EXISTS (
        SELECT FROM pg_db_role_setting AS s
         CROSS JOIN LATERAL unnest(s.setconfig) AS setting
          LEFT JOIN pg_roles AS r ON r.oid = s.setrole
          LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
         WHERE (s.setdatabase = 0 OR d.datname = current_database())
           AND (s.setrole = 0 OR r.rolname = current_user) AND split_part(setting, '=', 1) = g.name);

-- name: lock_waits
-- Sessions that wait for a lock of our tables, or for a transaction while they hold one, and those that block them.
SELECT w.pid, w.seconds, w.relation, blocker.pid AS blocker, a.usename::text AS role, a.application_name AS application,
       a.client_addr::text AS client, a.state, left(a.query, 200) AS query,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS blocker_seconds
  FROM (SELECT l.pid, max(extract(epoch FROM clock_timestamp() - l.waitstart)::float8) AS seconds,
               min(coalesce(c.relname, held.relname)) AS relation
          FROM pg_locks AS l
          LEFT JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = '{schema}'::regnamespace
          LEFT JOIN LATERAL (
                SELECT k.relname FROM pg_locks AS h
                  JOIN pg_class AS k ON k.oid = h.relation AND k.relnamespace = '{schema}'::regnamespace
                 WHERE h.pid = l.pid AND h.granted AND k.relkind IN ('r', 'p')
                   AND h.mode IN ('RowShareLock', 'RowExclusiveLock')
                 LIMIT 1) AS held ON true
         WHERE NOT l.granted AND l.waitstart < clock_timestamp() - make_interval(secs => %(lock_age)s)
           AND (l.database IS NULL OR l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
           AND coalesce(c.relname, held.relname) IS NOT NULL
         GROUP BY l.pid
         LIMIT 20) AS w
 CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(w.pid)) AS pid) AS blocker
  LEFT JOIN pg_stat_activity AS a ON a.pid = blocker.pid
 ORDER BY w.seconds DESC
 LIMIT 20;
