-- Errors by group: failed attempts with one fingerprint are counted together, and listed, muted and resolved as one.

-- The failed attempts that are not counted yet. The statement that stores the outcome of an attempt inserts its row, so that
-- each is counted exactly once; the schedulers fold the rows into the tables below. No index: the table is always read from
-- its beginning.
CREATE TABLE {schema}.error_event (
    at          timestamptz NOT NULL DEFAULT clock_timestamp() CHECK (isfinite(at)),
    fingerprint bigint NOT NULL,
    job         bigint NOT NULL,
    task        {schema}.job_name NOT NULL,
    queue       {schema}.job_name NOT NULL,
    error       jsonb NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = off
);

COMMENT ON TABLE {schema}.error_event IS 'Failed attempts that are not counted in error_group yet.';
COMMENT ON COLUMN {schema}.error_event.error IS 'The key of the group: type, message without variable parts, frame; the release.';

CREATE TABLE {schema}.error_group (
    fingerprint   bigint PRIMARY KEY,
    count         bigint NOT NULL CHECK (count > 0),
    first_seen    timestamptz NOT NULL CHECK (isfinite(first_seen)),
    last_seen     timestamptz NOT NULL CHECK (isfinite(last_seen)),
    first_job     bigint NOT NULL,
    changed_at    timestamptz CHECK (isfinite(changed_at)),
    reopened_at   timestamptz CHECK (isfinite(reopened_at)),
    state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'muted', 'resolved')),
    task          text NOT NULL,
    type          text NOT NULL,
    message       text,
    frame         text,
    first_release text,
    last_release  text,
    reopened_release text,
    changed_by    text,
    queues        text[] NOT NULL,
    samples       bigint[] NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX error_group_task ON {schema}.error_group (task);
CREATE INDEX error_group_last_seen ON {schema}.error_group (last_seen);

COMMENT ON TABLE {schema}.error_group IS 'Errors with the same cause, counted.';
COMMENT ON COLUMN {schema}.error_group.state IS 'open; muted: stays out of the list; resolved: reopens when the error occurs again.';
COMMENT ON COLUMN {schema}.error_group.message IS 'The message without variable parts; NULL if it is not part of the key.';
COMMENT ON COLUMN {schema}.error_group.frame IS 'module:function, the innermost one of the application.';
COMMENT ON COLUMN {schema}.error_group.samples IS 'The jobs that failed last, newest first.';
COMMENT ON COLUMN {schema}.error_group.changed_at IS 'When its state was changed by hand.';
COMMENT ON COLUMN {schema}.error_group.reopened_at IS 'When it last occurred again after it had been resolved.';

-- The number of errors of a group in each ten minutes.
CREATE TABLE {schema}.error_stat (
    fingerprint bigint NOT NULL,
    at          timestamptz NOT NULL,
    count       integer NOT NULL,
    PRIMARY KEY (fingerprint, at)
) WITH (fillfactor = 70);

CREATE INDEX error_stat_at ON {schema}.error_stat (at);

COMMENT ON COLUMN {schema}.error_stat.at IS 'The beginning of the ten minutes.';
