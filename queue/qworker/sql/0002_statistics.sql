-- Statistics: what the nodes have counted, by queue and task, and the sizes of the queues.

-- The pairs of queue and task that statistics refer to.
CREATE TABLE {schema}.series (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue       text NOT NULL,
    task        text NOT NULL,
    first_seen  date NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')::date,
    last_seen   date NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')::date,
    UNIQUE (queue, task)
);

COMMENT ON TABLE {schema}.series IS 'The pairs of queue and task that have been counted; those without jobs are deleted.';
COMMENT ON COLUMN {schema}.series.last_seen IS 'The last day (UTC) on which a node has counted.';

-- The nodes that have written counts. `seq` is the number of the last write: a write whose answer was lost is sent again,
-- and must not count twice, even if the first one has been folded meanwhile.
CREATE TABLE {schema}.stat_source (
    id          bigint PRIMARY KEY,
    seq         bigint NOT NULL,
    version     text NOT NULL,
    host        text NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

COMMENT ON COLUMN {schema}.stat_source.id IS 'A random number that a node draws when it starts.';

-- What the nodes have counted since their last write: one row for each node and minute. `fold` moves it to `stat`.
CREATE TABLE {schema}.stat_flush (
    at          timestamptz NOT NULL,
    source      bigint NOT NULL,
    counts      jsonb NOT NULL
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX stat_flush_at ON {schema}.stat_flush (at);

-- A histogram in one number: the count of bucket b stands in its 12 decimal digits from digit 12 * b on. Histograms are then
-- added by sum(), which is a hundred times as fast as adding arrays bucket by bucket.
CREATE FUNCTION {schema}.histogram(buckets integer[], counts bigint[]) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT sum(u.number * ('1' || repeat('0', 12 * u.bucket))::numeric) FROM unnest(buckets, counts) AS u (bucket, number));

-- The buckets of a histogram that are not empty, four in an octave: bucket b begins at 2^((b - 16) / 4) ms.
CREATE FUNCTION {schema}.buckets(histogram numeric) RETURNS TABLE (bucket integer, number bigint)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT b.bucket, d.digits::bigint
      FROM generate_series(0, 127) AS b (bucket)
     CROSS JOIN LATERAL (SELECT substr(lpad(histogram::text, 1536, '0'), 1525 - 12 * b.bucket, 12) AS digits) AS d
     WHERE d.digits <> '000000000000';
END;

-- Counts and histograms of a minute, of ten minutes, or of an hour. A row is moved to the next wider period, so that each
-- count is in one row. There may be several rows of a series and a period: readers add them.
CREATE TABLE {schema}.stat (
    width        smallint NOT NULL,
    at           timestamptz NOT NULL,
    series       integer NOT NULL,
    succeeded    integer,
    retried      integer,
    raised       integer,
    timed_out    integer,
    oom          integer,
    signalled    integer,
    exited       integer,
    stalled      integer,
    lease_lost   integer,
    supervisor_lost integer,
    node_lost    integer,
    interrupted  integer,
    snoozed      integer,
    unknown_task integer,
    cancelled_attempts integer,
    failed       integer,
    cancelled    integer,
    discarded    integer,
    expired      integer,
    released     integer,
    run_seconds  double precision,
    wait_seconds double precision,
    run_histogram  numeric,
    wait_histogram numeric
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX stat_period ON {schema}.stat (width, at, series);

COMMENT ON TABLE {schema}.stat IS 'Counts by queue and task. NULL means 0. Read it through qworker.statistics.';
COMMENT ON COLUMN {schema}.stat.width IS 'The length of the period in minutes: 1, 10 or 60.';
COMMENT ON COLUMN {schema}.stat.at IS 'The beginning of the period; a count is at most two minutes late.';
COMMENT ON COLUMN {schema}.stat.succeeded IS 'Attempts that succeeded, and so completed their job.';
COMMENT ON COLUMN {schema}.stat.retried IS 'Attempts that raised an exception, and were followed by another attempt.';
COMMENT ON COLUMN {schema}.stat.raised IS 'Attempts that raised an exception, after which the job failed or was discarded.';
COMMENT ON COLUMN {schema}.stat.timed_out IS 'Attempts that exceeded their timeout, whatever followed.';
COMMENT ON COLUMN {schema}.stat.oom IS 'Attempts whose worker was killed for lack of memory.';
COMMENT ON COLUMN {schema}.stat.signalled IS 'Attempts whose worker died of a signal.';
COMMENT ON COLUMN {schema}.stat.exited IS 'Attempts whose worker exited.';
COMMENT ON COLUMN {schema}.stat.stalled IS 'Attempts whose worker stalled and was killed; the attempt is not counted for the job.';
COMMENT ON COLUMN {schema}.stat.interrupted IS 'Attempts that a shutdown interrupted; not counted for the job.';
COMMENT ON COLUMN {schema}.stat.failed IS 'Jobs that failed.';
COMMENT ON COLUMN {schema}.stat.cancelled IS 'Jobs that a node cancelled, including those that expired.';
COMMENT ON COLUMN {schema}.stat.discarded IS 'Jobs that a node discarded: failure hooks that failed, and failed jobs that were too old.';
COMMENT ON COLUMN {schema}.stat.expired IS 'Jobs that were not started before their expiry time.';
COMMENT ON COLUMN {schema}.stat.released IS 'Claimed jobs that were released before they were started.';
COMMENT ON COLUMN {schema}.stat.run_histogram IS 'Run times: see the function buckets(). Bucket 0 holds all under 1 ms.';
COMMENT ON COLUMN {schema}.stat.wait_histogram IS 'The times from when a job could start until it was claimed.';

-- The same counts for totals over long periods. They are moved as soon as the wider period has ended, up to days, so that a
-- total of a month adds some tens of rows of a task.
CREATE TABLE {schema}.stat_total (
    width        smallint NOT NULL,
    at           timestamptz NOT NULL,
    series       integer NOT NULL,
    succeeded    bigint,
    retried      bigint,
    raised       bigint,
    timed_out    bigint,
    oom          bigint,
    signalled    bigint,
    exited       bigint,
    stalled      bigint,
    lease_lost   bigint,
    supervisor_lost bigint,
    node_lost    bigint,
    interrupted  bigint,
    snoozed      bigint,
    unknown_task bigint,
    cancelled_attempts bigint,
    failed       bigint,
    cancelled    bigint,
    discarded    bigint,
    expired      bigint,
    released     bigint,
    run_seconds  double precision,
    wait_seconds double precision,
    run_histogram  numeric,
    wait_histogram numeric
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX stat_total_period ON {schema}.stat_total (width, at, series);

COMMENT ON TABLE {schema}.stat_total IS 'What stat has, in periods of up to a day, for totals. Read it through qworker.statistics.';
COMMENT ON COLUMN {schema}.stat_total.width IS 'The length of the period in minutes: 1, 10, 60 or 1440.';

-- The same counts, added over the tasks of each queue, for charts. The rows with the empty queue are the sum.
CREATE TABLE {schema}.stat_queue (
    width        smallint NOT NULL,
    at           timestamptz NOT NULL,
    queue        text NOT NULL,
    succeeded    bigint,
    retried      bigint,
    raised       bigint,
    timed_out    bigint,
    oom          bigint,
    signalled    bigint,
    exited       bigint,
    stalled      bigint,
    lease_lost   bigint,
    supervisor_lost bigint,
    node_lost    bigint,
    interrupted  bigint,
    snoozed      bigint,
    unknown_task bigint,
    cancelled_attempts bigint,
    failed       bigint,
    cancelled    bigint,
    discarded    bigint,
    expired      bigint,
    released     bigint,
    run_seconds  double precision,
    wait_seconds double precision,
    run_histogram  numeric,
    wait_histogram numeric
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX stat_queue_period ON {schema}.stat_queue (width, at);
CREATE INDEX stat_queue_queue ON {schema}.stat_queue (queue, at);

COMMENT ON TABLE {schema}.stat_queue IS 'What stat has, by queue, for charts. Read it through qworker.statistics.';
COMMENT ON COLUMN {schema}.stat_queue.queue IS 'The name of the queue; empty in the sums of all queues.';

-- The versions that nodes have run, for marks in charts: that of the application if it is set, else that of qworker.
CREATE TABLE {schema}.deployment (
    version     text PRIMARY KEY,
    first_seen  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The sizes of the queues, sampled by one node every 15 seconds. The row with the empty queue is the sum.
CREATE TABLE {schema}.depth (
    at          timestamptz NOT NULL,
    queue       text NOT NULL,
    available   bigint NOT NULL,
    due         bigint NOT NULL,
    scheduled   bigint NOT NULL,
    running     bigint NOT NULL,
    failed      bigint NOT NULL,
    oldest      real,
    exact       boolean NOT NULL,
    PRIMARY KEY (at, queue)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02);

COMMENT ON COLUMN {schema}.depth.due IS 'Scheduled jobs whose time has come, but that are not available yet; included in `scheduled`.';
COMMENT ON COLUMN {schema}.depth.oldest IS 'How long the available job that is claimed next in its lane has waited (seconds); the longest of the lanes.';
COMMENT ON COLUMN {schema}.depth.exact IS 'False if the numbers are estimates from a sample of the table.';

-- The size of the database and of our tables, measured once a day: the doctor computes when the disk will be full.
CREATE TABLE {schema}.size (
    day         date PRIMARY KEY DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')::date,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    database_bytes bigint NOT NULL,
    schema_bytes bigint NOT NULL
);

-- The number of jobs that are ready or due, of one queue or of all, counted up to 100,001: for autoscalers. Small, because
-- the count stops there, and because the order makes the planner read an index: without it, the planner may read the table
-- from its beginning.
CREATE FUNCTION {schema}.backlog(queue text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    most CONSTANT bigint := 100001;
    ready bigint;
    due bigint;
BEGIN
    IF backlog.queue IS NULL THEN
        SELECT count(*) INTO ready
          FROM (SELECT FROM {schema}.job AS j WHERE j.state = 'available'
                 ORDER BY j.queue, j.priority, j.seq LIMIT most) AS counted;
    ELSE
        SELECT count(*) INTO ready
          FROM (SELECT FROM {schema}.job AS j WHERE j.state = 'available' AND j.queue = backlog.queue
                 ORDER BY j.priority, j.seq LIMIT most) AS counted;
    END IF;
    IF ready < most THEN
        SELECT count(*) INTO due
          FROM (SELECT FROM {schema}.job AS j
                 WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp())
                   AND (backlog.queue IS NULL OR j.queue = backlog.queue)
                 ORDER BY j.run_at
                 LIMIT most - ready) AS counted;
    ELSE
        due := 0;
    END IF;
    RETURN ready + due;
END
$$;
