-- What keeps the tables and indexes themselves in order.

-- name: limit
-- The limit of the next statement of the transaction.
SELECT set_config('statement_timeout', %(statement_timeout)s, true);

-- name: analyze
-- Gathers statistics on the history as a whole.
SELECT {schema}.analyze_history(%(target)s::integer);

-- name: measure
-- Notes the size of the database and of our tables, once a day (UTC), and deletes what is older than `days` days. Only a role
-- that may connect to the database may know its size. Returns the number of measurements that were added.
WITH old AS (
    DELETE FROM {schema}.size WHERE at < (SELECT clock_timestamp() - make_interval(days => %(days)s::integer))
)
INSERT INTO {schema}.size (database_bytes, schema_bytes)
SELECT pg_database_size(current_database()), {schema_bytes}
 WHERE has_database_privilege(current_database(), 'CONNECT')
   AND NOT EXISTS (SELECT FROM {schema}.size AS s WHERE s.day = (clock_timestamp() AT TIME ZONE 'UTC')::date)
    ON CONFLICT DO NOTHING;

-- name: leftovers
-- What REINDEX CONCURRENTLY has left behind when it failed, on these tables and the days of the history. An index that is being
-- built is invalid, too; its session holds a lock on the table, for which DROP INDEX CONCURRENTLY waits.
SELECT x.relname::text
  FROM pg_index AS i
  JOIN pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_class AS t ON t.oid = i.indrelid
 WHERE t.relnamespace = '{schema}'::regnamespace
   AND (t.relname = ANY (%(tables)s::text[]) OR t.relname ~ '^job_history_[0-9][0-9]$')
   AND x.relname ~ '_cc(new|old)[0-9]*$' AND NOT (i.indisvalid AND i.indisready AND i.indislive)
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
 ORDER BY x.relname;

-- name: drop
DROP INDEX CONCURRENTLY IF EXISTS {index};
