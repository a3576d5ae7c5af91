-- Statements of the migrator around the numbered files. {schema} is replaced by the configured name.

-- name: path
SELECT pg_catalog.current_setting('search_path');

-- name: set_path
-- Sets the search_path until the transaction ends.
SELECT pg_catalog.set_config('search_path', %(path)s, true);

-- name: lock
-- Only one migrator runs at a time; the lock is released with the transaction.
SELECT pg_catalog.pg_advisory_xact_lock(%s, %s);

-- name: exists
SELECT pg_catalog.to_regnamespace('{schema}') IS NOT NULL;

-- name: schema
CREATE SCHEMA {schema};

-- name: has_table
SELECT pg_catalog.to_regclass('{schema}.migration') IS NOT NULL;

-- name: table
-- The applied migrations, each with the oldest compatible code.
CREATE TABLE {schema}.migration (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    needs_code  integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- name: find
SELECT number FROM {schema}.migration WHERE number = %(number)s::integer;

-- name: record
INSERT INTO {schema}.migration (number, name, needs_code) VALUES (%(number)s, %(name)s, %(needs_code)s);

-- name: applied
SELECT number, name, needs_code, extract(epoch FROM applied_at)::float8 FROM {schema}.migration ORDER BY number;

-- name: script_begin
-- For an administrator: run this as the role of the workers, or grant that role its privileges on the schema.
BEGIN;

-- name: script_prepare
-- What precedes the migrations in their transaction.
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT pg_catalog.pg_advisory_xact_lock({first}, {second});
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.migration (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    needs_code  integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- name: script_record
INSERT INTO {schema}.migration (number, name, needs_code) VALUES ({number}, {name}, {needs_code});

-- name: script_end
COMMIT;
