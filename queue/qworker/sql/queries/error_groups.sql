-- Errors by group: counts failed attempts, reads the groups and changes their states.

-- name: pending
-- Whether there are failed attempts that are not counted yet.
SELECT EXISTS (SELECT FROM {schema}.error_event);

-- name: fold
-- Counts up to `limit` failed attempts, and deletes their rows in the same transaction: each is counted exactly once, even if
-- the answer is lost, and several nodes can do it at the same time. If a task has `max_groups` groups, its further errors
-- are grouped without their messages. Rows are locked in the order of their keys. A resolved group reopens if the error
-- occurred after the change of its state. Returns the groups that are new or reopened.
WITH taken AS MATERIALIZED (
    DELETE FROM {schema}.error_event
     WHERE ctid = ANY (ARRAY (SELECT e.ctid FROM {schema}.error_event AS e LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING *
), unknown AS (
    SELECT t.task, t.fingerprint, row_number() OVER (PARTITION BY t.task ORDER BY min(t.at), t.fingerprint) AS number
      FROM taken AS t
     WHERE NOT EXISTS (SELECT FROM {schema}.error_group AS g WHERE g.fingerprint = t.fingerprint)
     GROUP BY t.task, t.fingerprint
), known AS (
    SELECT u.task, (SELECT count(*) FROM {schema}.error_group AS g WHERE g.task = u.task) AS groups
      FROM (SELECT DISTINCT task FROM unknown) AS u
), keyed AS MATERIALIZED (
    SELECT CASE WHEN u.number + k.groups > %(max_groups)s THEN {without_message: t.fingerprint} ELSE t.fingerprint END AS key,
           t.at, t.job, t.task, t.queue, t.error
      FROM taken AS t
      LEFT JOIN unknown AS u ON u.task = t.task AND u.fingerprint = t.fingerprint
      LEFT JOIN known AS k ON k.task = u.task
), summed AS MATERIALIZED (
    SELECT key, count(*) AS count, min(at) AS first_seen, max(at) AS last_seen,
           (array_agg(job ORDER BY at))[1] AS first_job,
           (array_agg(job ORDER BY at DESC))[1:5] AS samples,
           (array_agg(task))[1] AS task, (array_agg(DISTINCT queue))[1:10] AS queues,
           (array_agg(error ORDER BY at))[1] AS error,
           (array_agg(error ->> 'release' ORDER BY at DESC))[1] AS last_release
      FROM keyed
     GROUP BY key
), stored AS (
    INSERT INTO {schema}.error_group AS g (
        fingerprint, count, first_seen, last_seen, first_job, task, type, message, frame, first_release, last_release,
        queues, samples)
    SELECT s.key, s.count, s.first_seen, s.last_seen, s.first_job, s.task, coalesce(s.error ->> 'type', 'unknown'),
           CASE WHEN s.key <> {without_message: s.key} THEN s.error ->> 'message' END, s.error ->> 'frame',
           s.error ->> 'release', s.last_release, s.queues, s.samples
      FROM summed AS s
     ORDER BY s.key
        ON CONFLICT (fingerprint) DO UPDATE
           SET count = g.count + excluded.count,
               first_seen = least(g.first_seen, excluded.first_seen),
               last_seen = greatest(g.last_seen, excluded.last_seen),
               last_release = CASE WHEN excluded.last_seen >= g.last_seen THEN excluded.last_release ELSE g.last_release END,
               queues = (ARRAY (SELECT DISTINCT q FROM unnest(g.queues || excluded.queues) AS q ORDER BY q))[1:10],
               samples = (ARRAY (SELECT s FROM unnest(excluded.samples || g.samples) WITH ORDINALITY AS u (s, number)
                                  GROUP BY s ORDER BY min(number)))[1:5],
               state = CASE WHEN {reopens} THEN 'open' ELSE g.state END,
               reopened_at = CASE WHEN {reopens} THEN excluded.last_seen ELSE g.reopened_at END,
               reopened_release = CASE WHEN {reopens} THEN excluded.last_release ELSE g.reopened_release END
    RETURNING g.fingerprint, g.task, g.type, g.message, g.reopened_at, g.reopened_release, g.first_seen, g.count,
              g.xmax = 0 AS is_new
), counted AS (
    INSERT INTO {schema}.error_stat AS e (fingerprint, at, count)
    SELECT k.key, date_bin('10 minutes', k.at, '2000-01-01 00:00:00+00'), count(*) FROM keyed AS k GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (fingerprint, at) DO UPDATE SET count = e.count + excluded.count
)
SELECT t.taken, r.fingerprint, r.task, r.type, r.message, r.reopened_release AS release, r.is_new
  FROM (SELECT count(*) AS taken FROM taken) AS t
  LEFT JOIN (
        SELECT g.* FROM stored AS g JOIN summed AS s ON s.key = g.fingerprint
         WHERE g.is_new OR g.reopened_at = s.last_seen) AS r ON true;

-- name: delete_old
-- Deletes up to `limit` counts that are more than a week old, and groups that did not occur for `keep` seconds or exceed
-- `max_total`; returns the number of rows.
WITH counts AS (
    DELETE FROM {schema}.error_stat
     WHERE ctid = ANY (ARRAY (
            SELECT e.ctid FROM {schema}.error_stat AS e
             WHERE e.at < clock_timestamp() - interval '7 days'
             ORDER BY e.at
             LIMIT %(limit)s
               FOR UPDATE SKIP LOCKED))
    RETURNING 1
), groups AS (
    DELETE FROM {schema}.error_group
     WHERE fingerprint = ANY (ARRAY (
            SELECT g.fingerprint FROM {schema}.error_group AS g
             WHERE g.last_seen < clock_timestamp() - make_interval(secs => %(keep)s::float8)
                OR g.last_seen <= (SELECT n.last_seen FROM {schema}.error_group AS n
                                    ORDER BY n.last_seen DESC OFFSET %(max_total)s LIMIT 1)
             ORDER BY g.last_seen
             LIMIT %(limit)s
               FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT (SELECT count(*) FROM counts) + (SELECT count(*) FROM groups);

-- name: find
-- The groups in some states behind a position, those that occurred last first, with their counts in `bins` equal periods after
-- `since`, and before `until` if that is given. begin: only groups that occurred from then on until `until`. Their counts are
-- looked up group by group: a scalar subquery is never hashed, which would read the counts of all groups.
SELECT {group_columns},
       ARRAY (SELECT coalesce(sum(e.count), 0)::bigint
                FROM generate_series(0, %(bins)s::integer - 1) AS bin
                LEFT JOIN {schema}.error_stat AS e
                  ON e.fingerprint = g.fingerprint AND e.at >= to_timestamp(%(since)s::float8 + bin * %(width)s::float8)
                 AND e.at < to_timestamp(least(%(since)s::float8 + (bin + 1) * %(width)s::float8, %(until)s::float8))
               GROUP BY bin ORDER BY bin) AS recent
  FROM {schema}.error_group AS g
 WHERE (%(fingerprint)s::bigint IS NULL OR g.fingerprint = %(fingerprint)s)
   AND (%(states)s::text[] IS NULL OR g.state = ANY (%(states)s))
   AND (%(queue)s::text IS NULL OR %(queue)s = ANY (g.queues))
   AND (%(task)s::text IS NULL OR g.task = %(task)s)
   AND (%(seen_after)s::float8 IS NULL OR g.last_seen >= to_timestamp(%(seen_after)s::float8))
   AND (%(begin)s::float8 IS NULL
        OR g.last_seen >= to_timestamp(%(begin)s::float8) AND g.first_seen < to_timestamp(%(until)s::float8)
        AND (SELECT true FROM {schema}.error_stat AS e
              WHERE e.fingerprint = g.fingerprint AND e.at >= to_timestamp(%(begin)s::float8)
                AND e.at < to_timestamp(%(until)s::float8)
              LIMIT 1))
   AND (%(below_at)s::float8 IS NULL OR g.last_seen <= to_timestamp(%(below_at)s::float8)
        AND (g.last_seen < to_timestamp(%(below_at)s::float8) OR g.fingerprint > %(below_fingerprint)s::bigint))
 ORDER BY g.last_seen DESC, g.fingerprint
 LIMIT %(limit)s;

-- name: change
-- Changes the state of a group; returns its state before, and nothing if there is no such group.
WITH old AS MATERIALIZED (
    SELECT g.fingerprint, g.state FROM {schema}.error_group AS g WHERE g.fingerprint = %(fingerprint)s FOR UPDATE
), changed AS (
    UPDATE {schema}.error_group AS g
       SET state = %(state)s, changed_at = clock_timestamp(), changed_by = %(actor)s::text
     WHERE g.fingerprint = ANY (ARRAY (SELECT old.fingerprint FROM old WHERE old.state <> %(state)s))
    RETURNING g.fingerprint
), audited AS (
    {audit: jsonb_build_object('errors', jsonb_agg(lpad(to_hex(c.fingerprint), 16, '0'))), NULL, %(action)s::text FROM changed AS c}
)
SELECT state FROM old;

-- name: failed
-- The failed jobs of a group behind a position, in the order of the index. A group without message has all messages of its
-- type and frame that are not groups of their own: each gap between two of these is read for itself, because their jobs may
-- be millions. `IS TRUE` keeps the planner from the indexes of failed jobs, which have another order.
SELECT found.fingerprint, found.id
  FROM (
        SELECT bound.fingerprint AS low, bound.id AS low_id,
               coalesce(lead(bound.fingerprint) OVER (ORDER BY bound.fingerprint, bound.id) - 1, %(last)s::bigint) AS high
          FROM (
                SELECT %(after_fingerprint)s::bigint AS fingerprint, %(after_id)s::bigint AS id
                 UNION ALL
                SELECT g.fingerprint, 9223372036854775807
                  FROM {schema}.error_group AS g
                 WHERE g.fingerprint >= %(after_fingerprint)s AND g.fingerprint > %(fingerprint)s
                   AND g.fingerprint <= %(last)s) AS bound) AS gap
 CROSS JOIN LATERAL (
        SELECT j.fingerprint, j.id
          FROM {schema}.job AS j
         WHERE (j.fingerprint, j.id) > (gap.low, gap.low_id) AND j.fingerprint <= gap.high
           AND (j.state = 'failed' AND j.failed_at <= to_timestamp(%(until)s::float8)) IS TRUE
         ORDER BY j.fingerprint, j.id
         LIMIT %(limit)s) AS found
 ORDER BY gap.low, gap.low_id, found.fingerprint, found.id
 LIMIT %(limit)s;

-- name: others
-- The groups in a range of fingerprints behind its first.
SELECT g.fingerprint FROM {schema}.error_group AS g
 WHERE g.fingerprint > %(fingerprint)s AND g.fingerprint <= %(last)s
 ORDER BY g.fingerprint;

-- name: now
SELECT extract(epoch FROM clock_timestamp())::float8;
