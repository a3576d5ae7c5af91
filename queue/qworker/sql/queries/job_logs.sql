-- The log lines of jobs: those of attempts that did not fail, and those of running attempts that are followed.

-- name: store
-- Stores the lines of attempts that have ended, or that end with the next statement. An attempt whose claim no longer holds the
-- job is skipped. A job that has ended in a transaction of its own is in the history already.
INSERT INTO {schema}.job_log (job, claimed_at, ended_at, attempt, dropped, ring_day, lines)
SELECT ended.job, ended.claimed_at, clock.now, ended.attempt, ended.dropped, {schema}.history_day(clock.now), ended.lines
  FROM (SELECT clock_timestamp() AS now) AS clock
 CROSS JOIN (
        SELECT l.job, l.attempt, l.dropped, l.lines::jsonb AS lines,
               coalesce((SELECT j.claimed_at FROM {schema}.job AS j WHERE j.id = l.job AND j.token = l.token),
                        (SELECT h.claimed_at FROM {schema}.job_history AS h
                          WHERE h.id = l.job AND h.token = l.token LIMIT 1)) AS claimed_at
          FROM unnest(%(jobs)s::bigint[], %(tokens)s::bigint[], %(attempts)s::integer[], %(dropped)s::integer[],
                      %(lines)s::text[]) AS l (job, token, attempt, dropped, lines)
       ) AS ended
 WHERE ended.claimed_at IS NOT NULL;

-- name: stored
-- The last attempts of a job whose lines are stored, oldest first.
SELECT l.attempt, extract(epoch FROM l.claimed_at)::float8 AS claimed_at, l.dropped, l.lines::text, false AS running
  FROM (SELECT r.* FROM {schema}.job_log AS r
         WHERE r.job = %(job)s AND (%(attempt)s::integer IS NULL OR r.attempt = %(attempt)s)
           AND r.claimed_at >= to_timestamp(%(since)s::float8)
         ORDER BY r.claimed_at DESC LIMIT 50) AS l
 ORDER BY l.claimed_at;

-- name: may_request
-- Whether this session can ask for the lines of running jobs: what its role may do, and whether the database can be written.
SELECT has_any_column_privilege('{schema}.live_log', 'INSERT')
       AND has_any_column_privilege('{schema}.live_log', 'UPDATE') AS permitted,
       current_user::text AS role, current_setting('transaction_read_only') = 'on' AS read_only;

-- name: request
-- Asks for the lines of a job. The request is renewed at most every three seconds. Returns whether it is a new one.
INSERT INTO {schema}.live_log AS l (job)
VALUES (%(job)s)
    ON CONFLICT (job) DO UPDATE SET requested_at = clock_timestamp()
 WHERE l.requested_at < clock_timestamp() - interval '3 s'
RETURNING l.xmax = 0;

-- name: wake
-- Makes idle nodes poll at once: no queue has an empty name.
SELECT pg_notify('{schema}', '');

-- name: live
-- What the node that runs the job has written last.
SELECT l.attempt, extract(epoch FROM l.claimed_at)::float8 AS claimed_at, l.dropped, l.lines::text, l.problem
  FROM {schema}.live_log AS l WHERE l.job = %(job)s;

-- name: withdraw
-- Another follower renews the request.
DELETE FROM {schema}.live_log WHERE job = %(job)s;

-- name: write
-- Writes the lines of a running attempt, unless it is written that far. Returns no row if nobody follows the job any more.
UPDATE {schema}.live_log AS l
   SET claimed_at = found.claimed_at, attempt = %(attempt)s, dropped = %(dropped)s, lines = %(lines)s::jsonb, problem = %(problem)s
  FROM (SELECT (SELECT j.claimed_at FROM {schema}.job AS j WHERE j.id = %(job)s AND j.token = %(token)s) AS claimed_at) AS found
 WHERE l.job = %(job)s AND found.claimed_at IS NOT NULL
   AND (l.claimed_at, l.dropped, jsonb_array_length(l.lines), l.problem)
       IS DISTINCT FROM (found.claimed_at, %(dropped)s::integer, %(count)s::integer, %(problem)s::text);

-- name: delete_old
-- Deletes requests that nobody has withdrawn.
DELETE FROM {schema}.live_log WHERE requested_at < clock_timestamp() - interval '1 minute';
