-- Statements that enqueue jobs. Each wakes idle nodes; `at` (seconds since 1970) replaces the clock in tests.
-- They run on callers' connections with the callers' search_path. PostgreSQL calls a function or operator of another role
-- there if its argument types match better than those in pg_catalog. Therefore all functions are qualified, and so are
-- operators that pg_catalog does not define for exactly these types (of an enum, or of smallint and integer).

-- name: prepared
-- One job without a start time, on a connection of the pool: the common case. It is executed by PreparedStatement. The
-- result is binary, which saves formatting a timestamp. Values are cast to the base types of the columns' domains: a
-- parameter with the type of a domain is checked when it is read, which has to set up the domain's constraints first.
INSERT INTO {schema}.job (task, queue, priority, overrides, args)
VALUES (%(task)s::text, %(queue)s::text, %(priority)s::smallint, %(overrides)s::jsonb, %(args)s::jsonb)
RETURNING id, enqueued_at,
          -- The EXISTS avoids the call: before PostgreSQL 18 calling the function costs more than the INSERT.
          (SELECT {schema}.wake(ARRAY[queue]) WHERE EXISTS (SELECT FROM {schema}.idle_node));

-- name: enqueue
-- The same on any connection, with tags.
INSERT INTO {schema}.job (task, args, queue, priority, overrides, tags)
VALUES (%(task)s, %(args)s::jsonb, %(queue)s, %(priority)s, %(overrides)s::jsonb, %(tags)s::text[])
RETURNING id, state::text, pg_catalog.date_part('epoch', enqueued_at), NULL::float8,
          (SELECT {schema}.wake(ARRAY[queue]) WHERE EXISTS (SELECT FROM {schema}.idle_node));

-- name: enqueue_with_meta
-- The same with a note on the origin of the job.
INSERT INTO {schema}.job (task, args, queue, priority, overrides, tags, meta)
VALUES (%(task)s, %(args)s::jsonb, %(queue)s, %(priority)s, %(overrides)s::jsonb, %(tags)s::text[], %(meta)s::jsonb)
RETURNING id, state::text, pg_catalog.date_part('epoch', enqueued_at), NULL::float8,
          (SELECT {schema}.wake(ARRAY[queue]) WHERE EXISTS (SELECT FROM {schema}.idle_node));

-- name: enqueue_later
-- One job with a start time or an expiry time.
WITH clock AS MATERIALIZED (
    {clock}
), enqueued AS (
    INSERT INTO {schema}.job ({timed_columns})
    SELECT {timed_values: %(args)s}
      FROM {start} AS t
    RETURNING id, state, queue, enqueued_at, run_at
)
{enqueued};

-- name: enqueue_unique
-- Enqueues one job if its key is free. If the key is held, returns the id of the job that holds it and a NULL state. An
-- empty state means that the key was free but a trigger suppressed the job. No row means that a concurrent session took
-- the key while this statement ran; try again.
WITH clock AS MATERIALIZED (
    {clock}
), {take_key: ARRAY[%(key)s::text]}, enqueued AS (
    INSERT INTO {schema}.job ({timed_columns}, id, holds_key)
    SELECT {timed_values: %(args)s}, taken.job_id, %(period)s::float8 IS NULL
      FROM taken, {start} AS t
    RETURNING id, state, queue, enqueued_at, run_at
)
{enqueued}
 UNION ALL
SELECT found.job_id, NULL, NULL, NULL, NULL FROM found WHERE NOT found.free
 UNION ALL
SELECT taken.job_id, '', NULL, NULL, NULL FROM taken WHERE NOT EXISTS (SELECT FROM enqueued);

-- name: enqueue_unique_many
-- Enqueues a job for each key that is free, of equal keys the first; returns the id of each, and whether the job was stored.
WITH clock AS MATERIALIZED (
    {clock}
), {take_key: %(keys)s::text[]}, wanted AS (
    SELECT DISTINCT ON (g.key) g.key, g.args, g.position
      FROM (SELECT pg_catalog.unnest(%(keys)s::text[]) AS key, pg_catalog.unnest(%(texts)s::text[]) AS args,
                   pg_catalog.generate_series(1, pg_catalog.cardinality(%(keys)s::text[])) AS position) AS g
     ORDER BY g.key, g.position
), new AS (
    SELECT w.position, w.args, taken.job_id FROM wanted AS w JOIN taken ON taken.key = w.key
), enqueued AS (
    INSERT INTO {schema}.job ({timed_columns}, id, holds_key)
    SELECT {timed_values: new.args}, new.job_id, %(period)s::float8 IS NULL
      FROM new, {start} AS t
     ORDER BY new.position
    RETURNING id
)
SELECT new.job_id, EXISTS (SELECT FROM enqueued AS e WHERE e.id = new.job_id) FROM new ORDER BY new.position;

-- name: free_key
-- Frees the key of a job that was not stored.
DELETE FROM {schema}.unique_key WHERE task = %(task)s AND key = %(key)s AND job_id = %(id)s;

-- name: clock
SELECT coalesce(%(at)s::float8, extract(epoch FROM pg_catalog.clock_timestamp())::float8);

-- name: begin
-- Begins a bulk on a connection of the pool. Timeouts are disabled because a COPY from a slow source may take long.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8,
       pg_catalog.set_config('statement_timeout', '0', true),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '0', true);

-- name: commit
COMMIT;

-- name: wake_and_commit
SELECT {schema}.wake(ARRAY[%(queue)s::text]);
COMMIT;

-- name: reserve
SELECT pg_catalog.nextval('{schema}.job_id_seq'::regclass) FROM pg_catalog.generate_series(1, %(count)s::bigint);

-- name: copy
-- Jobs without options. The lines are in UTF-8, whatever the connection's client_encoding.
COPY {schema}.job (args, task, queue, priority) FROM STDIN WITH (ENCODING 'UTF8');

-- name: copy_ids
COPY {schema}.job (id, args, task, queue, priority) FROM STDIN WITH (ENCODING 'UTF8');

-- name: copy_options
-- Jobs with options. A separate statement, because checking the domain of a column takes time even for NULL.
COPY {schema}.job (args, task, queue, priority, state, run_at, expires_at, overrides, tags, meta) FROM STDIN WITH (ENCODING 'UTF8');

-- name: copy_options_ids
COPY {schema}.job (id, args, task, queue, priority, state, run_at, expires_at, overrides, tags, meta) FROM STDIN WITH (ENCODING 'UTF8');

-- name: wake
SELECT {schema}.wake(ARRAY[%(queue)s::text]);

-- name: without_wakeup
-- For a transaction that is going to be prepared: PostgreSQL refuses PREPARE TRANSACTION after a NOTIFY. An idle node finds
-- the jobs by its next poll.
SELECT pg_catalog.set_config('qworker.wakeup', 'off', true);
