-- The stored schedules and their ticks.

-- name: declare
-- Declares a schedule; the declaration of the newest live node takes effect. A new schedule starts now.
INSERT INTO {schema}.cron AS c (name, task, expression, timezone, declared_by)
VALUES (%(name)s, %(task)s, %(expression)s, %(timezone)s, %(node)s)
ON CONFLICT (name) DO UPDATE
   SET task = excluded.task, expression = excluded.expression, timezone = excluded.timezone,
       declared_by = excluded.declared_by, declared_at = clock_timestamp()
 WHERE c.declared_by <= excluded.declared_by
    OR NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.id = c.declared_by);

-- name: find
-- The stored schedules. A node enqueues those that match its own declaration.
SELECT c.name, c.task, c.expression, c.timezone,
       extract(epoch FROM coalesce(c.last_tick, c.created_at))::float8 AS last_tick,
       extract(epoch FROM clock_timestamp())::float8 AS at
  FROM {schema}.cron AS c
 WHERE c.name = ANY (%(names)s::text[]);

-- name: tick
-- Enqueues one tick of a schedule and records it in last_tick; only one node can update the schedule's row. The job is the
-- same as from the task's enqueue (enqueue.sql). If another job holds its key, the tick is recorded without a job.
-- No row means that another node has enqueued the tick. A row without an id means that no job was stored; `holder` is the
-- job that holds the key, or NULL if it took the key while this statement ran. If an uncommitted transaction has inserted
-- the same key, the statement waits up to lock_timeout and then fails; the tick is tried again later.
WITH won AS (
    UPDATE {schema}.cron
       SET last_tick = to_timestamp(%(tick)s::float8)
     WHERE name = %(name)s AND coalesce(last_tick, created_at) < to_timestamp(%(tick)s::float8)
       AND expression = %(expression)s AND timezone = %(timezone)s
    RETURNING name
), clock AS MATERIALIZED (
    SELECT won.name, coalesce(to_timestamp(%(at)s::float8), clock_timestamp()) AS now FROM won
), seen AS MATERIALIZED (
    SELECT k.job_id,
           CASE WHEN k.expires_at IS NULL
                THEN NOT EXISTS (SELECT FROM {schema}.job AS j WHERE j.id = k.job_id AND j.holds_key)
                ELSE k.expires_at <= clock.now END AS over
      FROM {schema}.unique_key AS k, clock
     WHERE k.task = %(task)s AND k.key = %(key)s
), renewed AS (
    UPDATE {schema}.unique_key AS k
       SET job_id = nextval('{schema}.job_id_seq'), expires_at = clock.now + make_interval(secs => %(period)s::float8)
      FROM clock
     WHERE k.task = %(task)s AND k.key = %(key)s AND k.job_id = (SELECT seen.job_id FROM seen WHERE seen.over)
    RETURNING k.job_id
), taken AS (
    INSERT INTO {schema}.unique_key (task, key, job_id, expires_at)
    SELECT %(task)s, %(key)s, nextval('{schema}.job_id_seq'), clock.now + make_interval(secs => %(period)s::float8)
      FROM clock
     WHERE %(key)s::text IS NOT NULL AND NOT EXISTS (SELECT FROM seen)
        ON CONFLICT DO NOTHING
    RETURNING job_id
), numbered AS (
    SELECT job_id FROM renewed
     UNION ALL
    SELECT job_id FROM taken
     UNION ALL
    SELECT nextval('{schema}.job_id_seq') FROM clock WHERE %(key)s::text IS NULL
), enqueued AS (
    INSERT INTO {schema}.job (id, task, queue, priority, overrides, tags, state, run_at, expires_at, holds_key)
    SELECT p.job_id, %(task)s, %(queue)s, %(priority)s,
           jsonb_build_object('cron', clock.name, 'tick', %(tick)s::float8), %(tags)s::text[],
           CASE WHEN %(delay)s::float8 > 0 THEN 'scheduled'::{schema}.job_state ELSE 'available' END,
           CASE WHEN %(delay)s::float8 > 0 THEN clock.now + make_interval(secs => %(delay)s::float8) END,
           coalesce(to_timestamp(%(expires_at)s::float8), clock.now + make_interval(secs => %(expires)s::float8)),
           %(key)s::text IS NOT NULL AND %(period)s::float8 IS NULL
      FROM numbered AS p, clock
    RETURNING id, state, queue
)
SELECT e.id, (SELECT seen.job_id FROM seen WHERE NOT seen.over) AS holder,
       (SELECT {schema}.wake(ARRAY[e.queue]) WHERE e.state = 'available')
  FROM won
  LEFT JOIN enqueued AS e ON true;

-- name: delete_unused
-- Deletes schedules that no live node declares.
DELETE FROM {schema}.cron AS c
 WHERE NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.state -> 'cron' ? c.name)
   AND c.declared_at < clock_timestamp() - make_interval(secs => 300)
   AND coalesce(c.last_tick, c.created_at) < clock_timestamp() - make_interval(days => 31);
