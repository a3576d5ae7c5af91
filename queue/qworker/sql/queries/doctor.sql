-- What `qworker doctor` needs to know before its checks, which are in the files doctor_*.sql.

-- name: server
SELECT current_setting('server_version_num')::int AS version, current_database()::text AS database,
       current_user::text AS role, pg_is_in_recovery() AS standby,
       pg_has_role('pg_read_all_stats', 'USAGE') AS reads_sessions,
       has_function_privilege('pg_ls_waldir()', 'EXECUTE') AS reads_wal;

-- name: limit
SELECT set_config('statement_timeout', %(timeout)s, false);
