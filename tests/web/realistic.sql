-- A shop at work: two nodes, six queues, a month of counts, jobs in each state, a schedule that is paused.

SELECT setseed(0.42);

INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds, started_at, heartbeat_at, state)
SELECT n, 'web' || n || '.shop.example:' || (4000 + n), '2026.11.' || (24 + n), ARRAY['checkout', 'mail', 'default', 'images'], 4, 86400,
       now() - interval '3 days' * n, now() - interval '0.4 s',
       jsonb_build_object(
           'cron', '["nightly-report", "cart-reminder", "sync-stock"]'::jsonb, 'stale_writes', 0,
           'workers', (SELECT jsonb_agg(CASE WHEN w < 3 THEN jsonb_build_object('worker', w, 'pid', 41200 + 10 * n + w, 'phase', 'running',
                           'jobs_done', 1000 * w + 37 * n, 'rss_mib', 80 + 21 * w, 'job', 897 + 4 * n + w,
                           'task', 'shop.images.resize', 'ran', 2.5 * w + 1, 'left', 55.0)
                       ELSE jsonb_build_object('worker', w, 'pid', 41200 + 10 * n + w, 'phase', 'idle', 'jobs_done', 940 * w, 'rss_mib', 77) END)
                         FROM generate_series(0, 3) AS w))
       || CASE WHEN n = 2 THEN '{"last_death": {"worker": 1, "pid": 40113, "cause": "oom", "count": 2, "ago": 5400}}' ELSE '{}' END::jsonb
  FROM generate_series(1, 2) AS n;

INSERT INTO qworker.deployment (version, first_seen)
VALUES ('2026.11.20', now() - interval '6 days'), ('2026.11.25', now() - interval '19 hours'), ('2026.11.26', now() - interval '24 minutes');

INSERT INTO qworker.series (queue, task)
VALUES ('checkout', 'shop.orders.capture_payment'), ('checkout', 'shop.orders.send_receipt'), ('mail', 'shop.mail.newsletter'),
       ('mail', 'shop.mail.welcome'), ('images', 'shop.images.resize'), ('default', 'shop.search.reindex_product'),
       ('reports', 'shop.reports.nightly'), ('integrations-with-a-rather-long-name', 'shop.integrations.warehouse.synchronise_stock_levels');

INSERT INTO qworker.stat (width, at, series, succeeded, retried, raised, timed_out, oom, failed, cancelled, run_seconds, wait_seconds,
                          run_histogram, wait_histogram)
SELECT p.width, p.at, s.series, c.jobs, c.jobs / 90, c.jobs / 400, c.jobs / 900, CASE WHEN random() < 0.02 THEN 1 ELSE 0 END,
       c.jobs / 300 + (CASE WHEN s.id = 3 AND p.at BETWEEN now() - interval '35 minutes' AND now() - interval '22 minutes' THEN c.jobs / 4 ELSE 0 END),
       c.jobs / 1500, c.jobs * 0.04 * s.id, c.jobs * 0.2,
       qworker.histogram(ARRAY[16 + 3 * s.id, 19 + 3 * s.id, 23 + 3 * s.id, 30 + 3 * s.id]::integer[],
                         ARRAY[c.jobs * 5 / 10, c.jobs * 4 / 10, c.jobs * 9 / 100, c.jobs / 100]),
       qworker.histogram(ARRAY[20 + w.load, 27 + w.load, 36 + w.load], ARRAY[c.jobs * 6 / 10, c.jobs * 35 / 100, c.jobs * 5 / 100])
  -- Not the ids themselves: in a database that other tests have used before, these are any numbers.
  FROM (SELECT id AS series, row_number() OVER (ORDER BY id) AS id FROM qworker.series) AS s
 CROSS JOIN (
        SELECT 1, generate_series(date_trunc('minute', now()) - interval '60 minutes', now() - interval '1 minute', '1 minute')
         UNION ALL
        SELECT 10, generate_series(date_bin('10 minutes', now(), '2000-01-01') - interval '24 hours', now() - interval '71 minutes', '10 minutes')
         UNION ALL
        SELECT 60, generate_series(date_trunc('hour', now()) - interval '30 days', now() - interval '26 hours', '1 hour')) AS p (width, at)
 CROSS JOIN LATERAL (SELECT (p.width * (900 / s.id) * (1.1 + sin(extract(epoch FROM p.at)::float8 / 86400 * 2 * pi() - 2)) * (0.85 + 0.3 * random()))::integer AS jobs) AS c
 CROSS JOIN LATERAL (SELECT (4 * (1 + sin(extract(epoch FROM p.at)::float8 / 7200)))::integer AS load) AS w;

INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
SELECT d.at, q.name, d.waiting, 0, q.size / 3, CASE q.name WHEN 'images' THEN 6 ELSE 0 END, q.failed, CASE WHEN d.waiting > 0 THEN d.waiting / 40.0 END, true
  FROM (VALUES ('checkout', 40, 2), ('mail', 90000, 61), ('images', 300, 0), ('default', 25, 4),
               ('integrations-with-a-rather-long-name', 1200, 1)) AS q (name, size, failed)
 CROSS JOIN LATERAL (
        SELECT at, greatest(0, (q.size * (0.5 + 0.5 * sin(extract(epoch FROM at)::float8 / 900 + q.size)) * (0.9 + 0.2 * random()))::bigint) AS waiting
          FROM (SELECT generate_series(date_bin('15 seconds', now(), '2000-01-01') - interval '1 hour', now(), '15 seconds')
                 UNION ALL
                SELECT generate_series(date_bin('20 minutes', now(), '2000-01-01') - interval '7 days', now() - interval '70 minutes', '20 minutes')) AS t (at)) AS d;
INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
SELECT at, '', sum(available), sum(due), sum(scheduled), sum(running), sum(failed), max(oldest), true FROM qworker.depth GROUP BY at;

INSERT INTO qworker.queue (name, paused_at, paused_by, pause_reason)
VALUES ('integrations-with-a-rather-long-name', now() - interval '47 minutes', 'anna@shop.example', 'the warehouse migrates its API until noon');

INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by, paused_at, paused_by, pause_reason)
VALUES ('nightly-report', 'shop.reports.nightly', '30 2 * * *', 'Europe/Berlin', (date_trunc('day', now() AT TIME ZONE 'Europe/Berlin' - interval '150 minutes') + interval '150 minutes') AT TIME ZONE 'Europe/Berlin', 1, NULL, NULL, NULL),
       ('cart-reminder', 'shop.mail.cart_reminder', '*/15 * * * *', 'UTC', date_bin('15 minutes', now(), '2000-01-01'), 1, NULL, NULL, NULL),
       ('sync-stock', 'shop.integrations.warehouse.synchronise_stock_levels', '*/5 8-18 * * mon-fri', 'Europe/Berlin',
        now() - interval '50 minutes', 1, now() - interval '46 minutes', 'anna@shop.example', 'see the queue');

-- Those of the workers above.
INSERT INTO qworker.job (id, state, queue, task, args, attempt, priority, enqueued_at, claimed_at, run_at, node, token, tags, progress)
SELECT 897 + 4 * n + w, 'running', 'images', 'shop.images.resize', jsonb_build_object('product', 5000 + 4 * n + w, 'sizes', '[320, 640, 1280]'::jsonb), 1, 5,
       now() - interval '20 s', now() - interval '1 s' * (2.5 * w + 1.2), NULL, n, 4 * n + w, ARRAY['vip'],
       CASE WHEN w > 0 THEN jsonb_build_object('fraction', round(0.3 * w + 0.07 * n, 2), 'text', (ARRAY['320 px', '640 px'])[w]) END
  FROM generate_series(1, 2) AS n CROSS JOIN generate_series(0, 2) AS w;

INSERT INTO qworker.job (id, state, queue, task, args, attempt, priority, enqueued_at, run_at, tags)
SELECT 1000 + i, (CASE WHEN i % 3 = 0 THEN 'scheduled' ELSE 'available' END)::qworker.job_state,
       (ARRAY['checkout', 'mail', 'images', 'default', 'integrations-with-a-rather-long-name'])[1 + i % 5],
       (ARRAY['shop.orders.capture_payment', 'shop.mail.newsletter', 'shop.images.resize', 'shop.search.reindex_product',
              'shop.integrations.warehouse.synchronise_stock_levels'])[1 + i % 5],
       jsonb_build_object('order', 70000 + i, 'customer', 'customer-' || i || '@example.org', 'total', '49.90'), 0, 3 + i % 4,
       now() - interval '2 s' * i, CASE WHEN i % 3 = 0 THEN now() + interval '1 minute' * i END, CASE WHEN i % 7 = 0 THEN ARRAY['vip', 'de'] END
  FROM generate_series(1, 200) AS i;

INSERT INTO qworker.job (id, state, queue, task, args, attempt, enqueued_at, claimed_at, failed_at, fingerprint, errors, tags)
SELECT 2000 + i, 'failed', 'mail', 'shop.mail.newsletter', jsonb_build_object('campaign', 'black-friday', 'recipient', 90000 + i), 3,
       now() - interval '70 minutes', e.last - CASE WHEN i % 9 = 0 THEN interval '0.4 s' ELSE interval '12.1 s' END, e.last,
       CASE WHEN i % 9 = 0 THEN 4242 ELSE 4243 END,
       (SELECT jsonb_agg(jsonb_build_object(
            'at', to_char(e.last - interval '16 minutes' * (3 - a), 'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"'),
            'attempt', a, 'ran', CASE WHEN i % 9 = 0 THEN 0.4 ELSE 10.0 + a * 0.7 END, 'type', CASE WHEN i % 9 = 0 THEN 'KeyError' ELSE 'ConnectionRefusedError' END,
            'message', CASE WHEN i % 9 = 0 THEN '''first_name''' ELSE '[Errno 111] Connection refused: smtp-' || (1 + i % 3) || '.shop.example:587' END,
            'traceback', E'Traceback (most recent call last):\n  File "/srv/shop/shop/mail.py", line 81, in newsletter\n    deliver(render(campaign, recipient))\n  File "/srv/shop/shop/smtp.py", line 34, in deliver\n    with smtplib.SMTP(host, 587, timeout=10) as smtp:\n  File "/usr/lib/python3.12/smtplib.py", line 255, in __init__\n    (code, msg) = self.connect(host, port)\nConnectionRefusedError: [Errno 111] Connection refused',
            'logs', '[]'::jsonb)) FROM generate_series(1, 3) AS a), ARRAY['campaign']
  FROM generate_series(1, 61) AS i CROSS JOIN LATERAL (SELECT now() - interval '1 minute' * (20 + i % 15) AS last) AS e;

INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, state, task, type, message, frame, first_release, last_release, queues, samples)
VALUES (4243, 1840, now() - interval '9 days', now() - interval '21 minutes', 2001, 'open', 'shop.mail.newsletter', 'ConnectionRefusedError',
        '[Errno <n>] Connection refused: <…>', 'shop.smtp:deliver', '2026.11.20', '2026.11.26', ARRAY['mail'], ARRAY[2001, 2002, 2003, 2004]),
       (4242, 7, now() - interval '35 minutes', now() - interval '22 minutes', 2009, 'open', 'shop.mail.newsletter', 'KeyError', '<…>',
        'shop.mail:render', '2026.11.26', '2026.11.26', ARRAY['mail'], ARRAY[2009, 2018]),
       (77, 12, now() - interval '20 days', now() - interval '3 days', 12, 'muted', 'shop.orders.capture_payment', 'PaymentDeclined',
        'card was declined', 'shop.orders:capture_payment', '2026.11.20', '2026.11.25', ARRAY['checkout'], ARRAY[12]);
INSERT INTO qworker.error_stat (fingerprint, at, count)
SELECT f, date_bin('10 minutes', now(), '2000-01-01') - interval '10 minutes' * i, 1 + (random() * 30)::integer
  FROM unnest(ARRAY[4243, 4242]) AS f CROSS JOIN generate_series(1, 140) AS i WHERE f = 4243 OR i < 4;

INSERT INTO qworker.job_history (id, state, queue, task, args, result, attempt, priority, crashes, node_losses, is_hook, enqueued_at, claimed_at,
                                 finished_at, duration, node, ring_day, errors)
SELECT i, (CASE WHEN i % 41 = 0 THEN 'cancelled' WHEN i % 53 = 0 THEN 'discarded' ELSE 'completed' END)::qworker.job_state,
       (ARRAY['checkout', 'mail', 'images', 'default'])[1 + i % 4],
       (ARRAY['shop.orders.capture_payment', 'shop.mail.newsletter', 'shop.images.resize', 'shop.search.reindex_product'])[1 + i % 4],
       jsonb_build_object('order', 60000 + i), CASE WHEN i % 5 = 0 THEN '{"ok": true}'::jsonb END, 1, 5, 0, 0, false, t.at - interval '3 s', t.at - interval '2 s',
       t.at, 0.02 * (i % 60), 1, qworker.history_day(t.at), NULL
  FROM generate_series(1, 800) AS i
 CROSS JOIN LATERAL (SELECT now() - interval '4 s' * (800 - i) - interval '15 minutes' AS at) AS t;

INSERT INTO qworker.operation (action, filter, upper_id, below, rate, expected, done, skipped, state, actor, note, created_at, finished_at)
VALUES ('retry', 'queue:mail state:failed error:ConnectionRefusedError', 2060, 2020, 50, 54, 21, 1, 'running', 'anna@shop.example', 'smtp is back', now() - interval '12 s', NULL),
       ('cancel', 'task:shop.mail.newsletter state:scheduled args.campaign:summer', 900, 0, NULL, 12840, 12840, 0, 'completed', 'ben@shop.example', NULL,
        now() - interval '2 days', now() - interval '2 days' + interval '41 s');

INSERT INTO qworker.audit (at, actor, via, address, action, target, jobs, note)
SELECT now() - interval '47 minutes', 'anna@shop.example', 'web', '10.0.4.17', 'queue.pause', '{"queues": ["integrations-with-a-rather-long-name"]}'::jsonb, NULL::integer, 'the warehouse migrates its API until noon'
 UNION ALL
SELECT now() - interval '46 minutes', 'anna@shop.example', 'web', '10.0.4.17', 'schedule.pause', '{"schedules": ["sync-stock"]}', NULL, 'see the queue'
 UNION ALL
SELECT now() - interval '1 hour' * i, 'ben@shop.example', 'cli', NULL, 'job.retry', jsonb_build_object('jobs', jsonb_build_array(100 + i, 200 + i)), 2, NULL
  FROM generate_series(2, 12) AS i
 ORDER BY 1;

SELECT setval('qworker.job_id_seq', 3000), setval('qworker.job_seq', 3000), setval(pg_get_serial_sequence('qworker.node', 'id'), 2);
