-- The state of the cluster for metrics.

-- name: gauges
-- One JSON object: the last sample of the queues, if it is not older than `sample_age` seconds; the workers that serve them, the
-- paused queues, the number of live nodes, the number of jobs enqueued so far, how long the oldest snapshot has been held
-- (seconds), the sizes of tables (bytes), the schedules that are not paused, and the time of the database (since 1970).
SELECT jsonb_build_object(
    'queues', (
        SELECT coalesce(jsonb_object_agg(d.queue, jsonb_build_object(
                   'available', d.available, 'due', d.due, 'scheduled', d.scheduled, 'running', d.running, 'failed', d.failed,
                   'oldest', d.oldest)), '{}')
          FROM {schema}.depth AS d
         WHERE d.at = (SELECT max(n.at) FROM {schema}.depth AS n) AND d.queue <> ''
           AND d.at > clock_timestamp() - make_interval(secs => %(sample_age)s)),
    'workers', (
        SELECT coalesce(jsonb_object_agg(served.queue, served.workers), '{}')
          FROM (SELECT q.queue, sum(n.worker_count) AS workers
                  FROM {schema}.node AS n
                 CROSS JOIN LATERAL (SELECT DISTINCT unnest(n.queues) AS queue) AS q
                 WHERE {working: n}
                 GROUP BY q.queue) AS served),
    'paused', ARRAY (SELECT q.name FROM {schema}.queue AS q WHERE q.paused_at IS NOT NULL),
    'nodes', (
        SELECT count(*) FROM {schema}.node AS n
         WHERE {live: n}),
    'enqueued', (SELECT s.last_value - 1 + s.is_called::int FROM {schema}.job_id_seq AS s),
    'horizon', greatest(
        (SELECT date_part('epoch', clock_timestamp() - min(a.xact_start)) FROM pg_stat_activity AS a
          WHERE a.backend_xmin IS NOT NULL AND a.backend_type = 'client backend'),
        (SELECT date_part('epoch', clock_timestamp() - min(p.prepared)) FROM pg_prepared_xacts AS p), 0),
    'bytes', jsonb_build_object(
        'job', pg_total_relation_size('{schema}.job'),
        'job_history', (SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree('{schema}.job_history') AS t),
        'stat', pg_total_relation_size('{schema}.stat')),
    'schedules', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(
                   c.name, c.expression, c.timezone,
                   extract(epoch FROM greatest(coalesce(c.last_tick, c.created_at), c.resumed_at)))), '[]')
          FROM {schema}.cron AS c
         WHERE c.paused_at IS NULL),
    'at', extract(epoch FROM clock_timestamp())
)::text;
