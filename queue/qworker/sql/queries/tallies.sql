-- Statistics: what nodes have counted is written once a minute, and moved to wider periods. Each statement may run on all
-- nodes at the same time; each count is moved once.

-- name: add_series
-- Numbers the pairs of queue and task that have none. The pairs are sorted, so that two nodes do not wait for each other.
INSERT INTO {schema}.series (queue, task)
SELECT w.queue, w.task
  FROM unnest(%(queues)s::text[], %(tasks)s::text[]) AS w (queue, task)
 WHERE NOT EXISTS (SELECT FROM {schema}.series AS s WHERE s.queue = w.queue AND s.task = w.task)
 ORDER BY w.queue, w.task
    ON CONFLICT DO NOTHING;

-- name: find_series
SELECT s.id
  FROM unnest(%(queues)s::text[], %(tasks)s::text[]) WITH ORDINALITY AS w (queue, task, position)
 CROSS JOIN LATERAL (SELECT s.id FROM {schema}.series AS s WHERE s.queue = w.queue AND s.task = w.task LIMIT 1) AS s
 ORDER BY w.position;

-- name: touch_series
-- Notes the day on which series were last counted; a row that another node is updating is skipped.
UPDATE {schema}.series
   SET last_seen = (clock_timestamp() AT TIME ZONE 'UTC')::date
 WHERE id = ANY (ARRAY (
        SELECT s.id FROM {schema}.series AS s
         WHERE s.id = ANY (%(ids)s::integer[]) AND s.last_seen < (clock_timestamp() AT TIME ZONE 'UTC')::date
           FOR UPDATE SKIP LOCKED));

-- name: flush
-- Writes the counts of a node, unless they have been written: the answer to an earlier attempt may have been lost. Returns
-- whether they were.
WITH source AS (
    INSERT INTO {schema}.stat_source AS s (id, seq, version, host)
    VALUES (%(source)s, %(seq)s, %(version)s, %(host)s)
        ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, version = excluded.version, written_at = clock_timestamp()
         WHERE s.seq < excluded.seq
    RETURNING s.id
), deployment AS (
    INSERT INTO {schema}.deployment (version)
    SELECT %(version)s FROM source
     WHERE NOT EXISTS (SELECT FROM {schema}.deployment AS d WHERE d.version = %(version)s)
        ON CONFLICT DO NOTHING
), written AS (
    INSERT INTO {schema}.stat_flush (at, source, counts)
    SELECT date_trunc('minute', clock_timestamp()), source.id, %(counts)s::text::jsonb
      FROM source
     WHERE %(counts)s::text <> '[]'
)
SELECT count(*) > 0 FROM source;

-- name: fold_flushed
-- Moves what nodes have written before this minute to rows of a minute, in each of the three tables: up to `limit` writes.
-- Returns the number of rows of `stat`.
WITH gone AS (
    DELETE FROM {schema}.stat_flush
     WHERE ctid = ANY (ARRAY (
            SELECT f.ctid FROM {schema}.stat_flush AS f
             WHERE f.at < (SELECT date_trunc('minute', clock_timestamp()))
             ORDER BY f.at
             LIMIT %(limit)s
               FOR UPDATE SKIP LOCKED))
    RETURNING at, counts
), part AS (
    SELECT gone.at, series, {counters}, run_seconds, wait_seconds,
           {schema}.histogram(run_bucket, run_count) AS run_histogram,
           {schema}.histogram(wait_bucket, wait_count) AS wait_histogram
      FROM gone CROSS JOIN LATERAL jsonb_to_recordset(gone.counts) AS p (
       {flushed_counts})
), {added_counts: series}, totals AS (
    INSERT INTO {schema}.stat_total (width, at, series, {kept_counts}) SELECT 1, counted.* FROM counted
), queues AS (
    INSERT INTO {schema}.stat_queue (width, at, queue, {kept_counts})
    SELECT 1, p.at, coalesce(n.queue, ''), {sums}
      FROM counted AS p
      JOIN {schema}.series AS n ON n.id = p.series
     GROUP BY GROUPING SETS ((p.at, n.queue), (p.at))
)
INSERT INTO {schema}.stat (width, at, series, {kept_counts}) SELECT 1, counted.* FROM counted;

-- name: fold
-- Moves the rows of the oldest period that ended more than `age` seconds ago to the next wider period. Returns their number.
{moved_counts: stat}, part AS (
    SELECT period.start AS at, gone.series, {kept_counts} FROM gone CROSS JOIN period
), {added_counts: series}
INSERT INTO {schema}.stat (width, at, series, {kept_counts}) SELECT %(wider)s::smallint, counted.* FROM counted;

-- name: fold_totals
{moved_counts: stat_total}, part AS (
    SELECT period.start AS at, gone.series, {kept_counts} FROM gone CROSS JOIN period
), {added_counts: series}
INSERT INTO {schema}.stat_total (width, at, series, {kept_counts}) SELECT %(wider)s::smallint, counted.* FROM counted;

-- name: fold_queues
{moved_counts: stat_queue}, part AS (
    SELECT period.start AS at, gone.queue, {kept_counts} FROM gone CROSS JOIN period
), {added_counts: queue}
INSERT INTO {schema}.stat_queue (width, at, queue, {kept_counts}) SELECT %(wider)s::smallint, counted.* FROM counted;

-- name: delete_old_stats
-- Deletes rows of a width that are older than `age` seconds; returns their number, at most 1,000.
DELETE FROM {schema}.stat {limited: stat AS o
 WHERE o.width = %(width)s AND o.at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8))};

-- name: delete_old_totals
DELETE FROM {schema}.stat_total {limited: stat_total AS o
 WHERE o.width = %(width)s AND o.at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8))};

-- name: delete_old_queues
DELETE FROM {schema}.stat_queue {limited: stat_queue AS o
 WHERE o.width = %(width)s AND o.at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8))};

-- name: delete_old_depths
DELETE FROM {schema}.depth {limited: depth AS o
 WHERE o.at < (SELECT clock_timestamp() - make_interval(secs => %(age)s::float8))};

-- name: delete_old_series
-- Deletes what has not been counted for `days` days, when all of its rows in `stat` are deleted.
DELETE FROM {schema}.series {limited: series AS o
 WHERE o.last_seen < (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date - %(days)s::integer)};

-- name: delete_old_sources
DELETE FROM {schema}.stat_source {limited: stat_source AS o
 WHERE o.written_at < (SELECT clock_timestamp() - make_interval(days => %(days)s::integer))};

-- name: delete_old_deployments
DELETE FROM {schema}.deployment {limited: deployment AS o
 WHERE o.first_seen < (SELECT clock_timestamp() - make_interval(days => %(days)s::integer))};
