-- The log lines of attempts that did not fail, in a ring of 32 days, and those of running jobs that are followed.

-- Written by nodes with job_logs = all, and for attempts that are followed. The lines of a failed attempt are in its error.
CREATE TABLE {schema}.job_log (
    job         bigint NOT NULL,
    claimed_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL,
    attempt     integer NOT NULL,
    dropped     integer NOT NULL,
    ring_day    smallint NOT NULL,
    lines       jsonb NOT NULL
) PARTITION BY LIST (ring_day);

CREATE INDEX job_log_job ON {schema}.job_log (job);

COMMENT ON TABLE {schema}.job_log IS 'The last log lines of attempts that did not fail; those of failed ones are in their errors.';
COMMENT ON COLUMN {schema}.job_log.claimed_at IS 'When the attempt was claimed, which identifies it: numbers of attempts may recur.';
COMMENT ON COLUMN {schema}.job_log.dropped IS 'The number of earlier lines, which were not kept.';
COMMENT ON COLUMN {schema}.job_log.ring_day IS 'Days since 1970-01-01 (UTC) of ended_at, modulo 32.';

DO $$
BEGIN
    FOR day IN 0..31 LOOP
        EXECUTE format(
            'CREATE TABLE {schema}.job_log_%s PARTITION OF {schema}.job_log FOR VALUES IN (%s)'
            ' WITH (vacuum_truncate = off)',
            lpad(day::text, 2, '0'), day);
    END LOOP;
END
$$;

-- The jobs whose lines are followed. The scheduler of the node that runs one of them sees it in its poll, and writes the
-- lines that the attempt has logged so far. A request that is not renewed for a few seconds no longer counts.
CREATE TABLE {schema}.live_log (
    job          bigint PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at   timestamptz,
    attempt      integer,
    dropped      integer,
    lines        jsonb,
    problem      text
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

COMMENT ON COLUMN {schema}.live_log.requested_at IS 'When a follower has last renewed its request.';
COMMENT ON COLUMN {schema}.live_log.claimed_at IS 'The attempt to which the lines belong; NULL while there is none.';
COMMENT ON COLUMN {schema}.live_log.problem IS 'Why there are no lines.';
