-- The settings of queues. Names are sorted before their rows are locked. An empty notification, which no queue has as its
-- name, makes the nodes poll at once.

-- name: pause
-- Pauses queues that are not paused yet; returns them.
WITH paused AS (
    INSERT INTO {schema}.queue AS q (name, paused_at, paused_by, pause_reason)
    SELECT n.name, clock_timestamp(), %(actor)s::text, %(note)s::text
      FROM (SELECT DISTINCT unnest(%(names)s::text[])) AS n (name)
     ORDER BY n.name
        ON CONFLICT (name) DO UPDATE
           SET paused_at = excluded.paused_at, paused_by = excluded.paused_by, pause_reason = excluded.pause_reason
         WHERE q.paused_at IS NULL
    RETURNING q.name
), audited AS (
    {audit: jsonb_build_object('queues', jsonb_agg(c.name ORDER BY c.name)), NULL, 'queue.pause' FROM paused AS c}
)
SELECT paused.name, pg_notify('{schema}', '') FROM paused;

-- name: resume
-- Resumes paused queues; returns them.
WITH resumed AS (
    UPDATE {schema}.queue
       SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
     WHERE name = ANY (ARRAY (
            SELECT q.name FROM {schema}.queue AS q
             WHERE q.name = ANY (%(names)s::text[]) AND q.paused_at IS NOT NULL
             ORDER BY q.name
               FOR UPDATE))
    RETURNING name
), audited AS (
    {audit: jsonb_build_object('queues', jsonb_agg(c.name ORDER BY c.name)), NULL, 'queue.resume' FROM resumed AS c}
)
SELECT resumed.name, pg_notify('{schema}', '') FROM resumed;

-- name: paused
-- The paused ones of these queues, or of all.
SELECT {pause_columns}
  FROM {schema}.queue AS q
 WHERE q.paused_at IS NOT NULL AND (%(names)s::text[] IS NULL OR q.name = ANY (%(names)s::text[]))
 ORDER BY q.name;

-- name: holding
-- The pause of a waiting job's queue.
SELECT {pause_columns}
  FROM {schema}.job AS j
  JOIN {schema}.queue AS q ON q.name = j.queue
 WHERE j.id = %(id)s AND j.state IN ('available', 'scheduled') AND q.paused_at IS NOT NULL;

-- name: waiting
-- The paused queues that hold jobs that are due. Due jobs soon become available, also those of paused queues: it is enough to
-- look at the first ones. Of EXISTS, the planner expects a row soon, and may read the whole table for it: it has no order.
WITH due AS MATERIALIZED (
    SELECT j.queue::text
      FROM {schema}.job AS j
     WHERE j.state = 'scheduled' AND j.run_at <= (SELECT clock_timestamp())
     ORDER BY j.run_at
     LIMIT 1000
)
SELECT {pause_columns}
  FROM {schema}.queue AS q
 WHERE q.paused_at IS NOT NULL
   AND ((SELECT true FROM {schema}.job AS j WHERE j.state = 'available' AND j.queue = q.name ORDER BY j.priority, j.seq LIMIT 1)
        OR q.name IN (SELECT due.queue FROM due))
 ORDER BY q.name;
