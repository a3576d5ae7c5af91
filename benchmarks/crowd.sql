-- What fills the database of large.py. A backlog of one task is nine tenths of `job`; the rest has other queues, 200 tasks, tags
-- from common to rare, scheduled jobs, and failed ones with 300 groups of errors. The older ids are mostly of finished jobs,
-- the newer ones mostly of unfinished jobs. The statistics are those of a month of 200 tasks that are always active.

-- name: jobs
INSERT INTO qworker.job (id, seq, queue, task, args, tags, enqueued_at, state, run_at, failed_at, attempt, errors, fingerprint)
SELECT n, n, c.queue, c.task, c.args, c.tags, c.enqueued_at, c.state::qworker.job_state,
       CASE c.state WHEN 'scheduled' THEN now() + (n % 100000) * interval '1 s' END,
       CASE c.state WHEN 'failed' THEN c.enqueued_at + interval '1 s' END,
       CASE WHEN c.state = 'failed' THEN 3 WHEN n % 5000 = 1 THEN 1 ELSE 0 END, e.errors,
       CASE WHEN e.errors IS NOT NULL THEN qworker.fingerprint(c.task, e.errors -> -1) END
  FROM pg_temp.crowd(:first, :last, :total) AS c
 CROSS JOIN LATERAL (
        SELECT CASE WHEN c.state = 'failed' THEN jsonb_build_array(jsonb_build_object(
                   'at', c.enqueued_at, 'type', 'ValueError', 'message', 'order ' || n || ' is lost', 'attempt', 3,
                   'fingerprint', lpad(to_hex(n / 25 % 300), 16, '0'), 'traceback', repeat(E'  File "mail.py", line 7\n', 16)))
               END AS errors) AS e
 WHERE NOT c.ended;

-- name: history
INSERT INTO qworker.job_history (id, token, node, enqueued_at, claimed_at, finished_at, duration, state, attempt, ring_day,
                                 priority, crashes, node_losses, is_hook, queue, task, args, tags)
SELECT n, n, 1, c.enqueued_at, c.enqueued_at + interval '1 s', f.at, (n % 1000) / 1000.0,
       (CASE n % 100 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'discarded' ELSE 'completed' END)::qworker.job_state, 1,
       qworker.history_day(f.at), 5, 0, 0, false, c.queue, c.task, c.args, c.tags
  FROM pg_temp.crowd(:first, :last, :total) AS c
 CROSS JOIN LATERAL (SELECT c.enqueued_at + interval '2 s' AS at) AS f
 WHERE c.ended;

-- name: crowd
CREATE FUNCTION pg_temp.crowd(first bigint, last bigint, total bigint)
RETURNS TABLE (n bigint, ended boolean, queue text, task text, args jsonb, tags text[], enqueued_at timestamptz, state text)
LANGUAGE sql
AS $$
    SELECT n, CASE WHEN n <= total * 2 / 5 THEN n % 16 <> 0 ELSE n % 7 = 3 END,
           CASE WHEN n % 10 > 0 THEN 'bulk' WHEN n % 100 >= 40 THEN 'default' WHEN n % 100000 = 0 THEN 'rare' ELSE 'mail' END,
           CASE WHEN n % 10 > 0 THEN 'bulk.import' ELSE 'app.task_' || (n / 10 % 200) END,
           jsonb_build_object('user', n % 5000, 'n', n),
           CASE WHEN n % 1000 = 0 THEN '{rare,tenant:7}'::text[] WHEN n % 10 = 3 THEN ARRAY['tenant:' || (n / 10 % 50)] END,
           now() - (total - n) * interval '30 ms',
           CASE WHEN n % 25 = 0 OR n % 16 = 0 AND n < total / 2 THEN 'failed' WHEN n % 12 = 1 THEN 'scheduled' ELSE 'available' END
      FROM generate_series(first, last) AS n
$$;

-- name: statistics_series
INSERT INTO qworker.series (queue, task) SELECT 'default', 'app.task_' || n FROM generate_series(0, 199) AS n;

-- name: statistics_stat
INSERT INTO qworker.stat (width, at, series, succeeded, retried, failed, raised, run_seconds, wait_seconds, run_histogram,
                          wait_histogram)
SELECT p.width, p.at, s.id, 900, 20, 5, 5, 80, 3, b.histogram + s.id, b.histogram + s.id
  FROM (SELECT 1 AS width, at FROM generate_series(date_trunc('minute', now()) - interval '70 min',
                                                   date_trunc('minute', now()) - interval '2 min', '1 min') AS at
         UNION ALL
        SELECT 10, at FROM generate_series(date_trunc('hour', now()) - interval '25 h',
                                           date_trunc('hour', now()) - interval '2 h', '10 min') AS at
         UNION ALL
        SELECT 60, at FROM generate_series(date_trunc('hour', now()) - interval '32 days',
                                           date_trunc('hour', now()) - interval '26 h', '1 h') AS at) AS p
 CROSS JOIN qworker.series AS s
 CROSS JOIN (SELECT qworker.histogram(array_agg(n), array_agg(n + 10)) AS histogram FROM generate_series(10, 30) AS n) AS b;

-- name: statistics_totals
INSERT INTO qworker.stat_total (width, at, series, succeeded, retried, failed, raised, run_seconds, wait_seconds, run_histogram,
                                wait_histogram)
SELECT p.width, p.at, s.series, sum(s.succeeded), sum(s.retried), sum(s.failed), sum(s.raised), sum(s.run_seconds),
       sum(s.wait_seconds), sum(s.run_histogram), sum(s.wait_histogram)
  FROM qworker.stat AS s
 CROSS JOIN LATERAL (
        SELECT CASE WHEN s.at < date_trunc('day', now(), 'UTC') - interval '2 days' THEN 1440
                    WHEN s.at < date_trunc('hour', now()) THEN 60 ELSE s.width END AS width) AS w
 CROSS JOIN LATERAL (SELECT w.width, date_bin(make_interval(mins => w.width), s.at, '2000-01-01 00:00:00+00') AS at) AS p
 GROUP BY p.width, p.at, s.series;

-- name: statistics_queues
INSERT INTO qworker.stat_queue (width, at, queue, succeeded, retried, failed, raised, run_seconds, wait_seconds, run_histogram,
                                wait_histogram)
SELECT s.width, s.at, coalesce(n.queue, ''), sum(s.succeeded), sum(s.retried), sum(s.failed), sum(s.raised),
       sum(s.run_seconds), sum(s.wait_seconds), sum(s.run_histogram), sum(s.wait_histogram)
  FROM qworker.stat AS s JOIN qworker.series AS n ON n.id = s.series
 GROUP BY GROUPING SETS ((s.width, s.at, n.queue), (s.width, s.at));

-- name: statistics_depth
INSERT INTO qworker.depth
SELECT at, q, 1000000, 10, 80000, 60, 400000, 12.5, false
  FROM generate_series(now() - interval '7 days', now(), '15 s') AS at, unnest(ARRAY['', 'bulk', 'default', 'mail']) AS q;

-- name: statistics_errors
INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, message, queues, samples)
SELECT ('x' || lpad(to_hex(n), 16, '0'))::bit(64)::bigint, 1500, now() - interval '9 days', now() - n * interval '1 min', n,
       'app.task_' || (n % 200), 'ValueError', 'order is lost', '{default}', ARRAY[n * 25]
  FROM generate_series(0, 299) AS n;

-- name: statistics_errors_counted
INSERT INTO qworker.error_stat
SELECT fingerprint, at, 10 FROM qworker.error_group, generate_series(now() - interval '7 days', now(), '10 min') AS at;

-- name: statistics_audit
INSERT INTO qworker.audit (actor, via, action, target, jobs)
SELECT 'user-' || n % 20, 'cli', 'job.retry', jsonb_build_object('jobs', jsonb_build_array(n * 25)), 1
  FROM generate_series(1, 100000) AS n;

-- name: indexes
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
 WHERE indrelid = 'qworker.job'::regclass AND NOT indisprimary;
