-- Statements of qworker.testing, on the connection of a test.

-- name: lanes
-- The lanes that have jobs which a worker would claim, in the order of the queues given, or else by name.
SELECT j.queue, j.priority FROM {schema}.job AS j
 WHERE j.state = 'available' AND (%(queues)s::text[] IS NULL OR j.queue = ANY (%(queues)s::text[]))
 GROUP BY j.queue, j.priority
 ORDER BY pg_catalog.array_position(%(queues)s::text[], j.queue::text), j.queue, j.priority;

-- name: postpone
-- Moves the start time of a job by the seconds by which the clock of the test is ahead of the database's.
UPDATE {schema}.job SET run_at = run_at + pg_catalog.make_interval(secs => %(seconds)s::float8)
 WHERE id = %(id)s AND state = 'scheduled'
RETURNING id;

-- name: earlier
-- The number of jobs, of those found first, that wait and were enqueued more than `age` seconds ago, and the database.
SELECT (SELECT pg_catalog.count(*)
          FROM (SELECT FROM {schema}.job AS j
                 WHERE j.state OPERATOR(pg_catalog.<>) 'failed'
                   AND j.enqueued_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(age)s::float8)
                 LIMIT 100) AS found) AS jobs,
       pg_catalog.current_database() AS database;
