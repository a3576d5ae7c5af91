-- Enqueueing by functions that run with the privileges of their owner: for roles without privileges on the tables, and on
-- connections of drivers other than psycopg, where values are sent as literals or with types that the driver guesses.

-- name: needed
-- Whether this role needs the function: it may not INSERT into the table but may call the function.
SELECT NOT pg_catalog.has_table_privilege('{schema}.job'::regclass, 'INSERT')
       AND pg_catalog.has_function_privilege('{schema}.enqueue_jobs'::regproc, 'EXECUTE');

-- name: enqueue
SELECT e.job_id AS id, e.job_state AS state, e.made_at AS enqueued_at, e.due_at AS run_at, e.held AS is_holder
  FROM {schema}.enqueue_jobs(
    task => %(task)s::text, args => %(args)s::text[]::jsonb[], queue => %(queue)s::text, priority => %(priority)s::integer,
    overrides => %(overrides)s::jsonb, tags => %(tags)s::text[], delay => %(delay)s::float8,
    run_at => pg_catalog.to_timestamp(%(run_at)s::float8), expires => %(expires)s::float8,
    expires_at => pg_catalog.to_timestamp(%(expires_at)s::float8), key => %(key)s::text, period => %(period)s::float8,
    meta => %(meta)s::jsonb) AS e;

-- name: may_read
-- Whether this role may read the job that holds a key.
SELECT pg_catalog.has_table_privilege('{schema}.jobs'::regclass, 'SELECT')
       AND pg_catalog.has_table_privilege('{schema}.job'::regclass, 'SELECT')
       AND pg_catalog.has_table_privilege('{schema}.job_history'::regclass, 'SELECT');
