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

-- name: declared_by_newer
SELECT true FROM {schema}.cron AS c WHERE c.name = %(name)s AND c.declared_by > %(node)s;

-- name: find
-- The stored schedules. A node enqueues those that match its own declaration.
SELECT c.name, c.expression, c.timezone,
       extract(epoch FROM greatest(coalesce(c.last_tick, c.created_at), c.resumed_at))::float8 AS last_tick,
       c.paused_at IS NOT NULL AS paused, extract(epoch FROM clock_timestamp())::float8 AS at
  FROM {schema}.cron AS c
 WHERE c.name = ANY (%(names)s::text[]);

-- name: tick
-- Enqueues one tick of a schedule and records it in last_tick; only one node can update the schedule's row. The job is the
-- same as from the task's enqueue (enqueue.sql). If another job holds its key, the tick is recorded without a job.
-- No row means that another node has enqueued the tick. A row without an id means that no job was stored; `holder` is the
-- job that holds the key, or NULL if it took the key while this statement ran. `suppressed` means that a trigger has kept
-- the tick from being recorded, or its job from being stored; the caller then undoes the rest. If an uncommitted transaction has inserted
-- the same key, the statement waits up to lock_timeout and then fails; the tick is tried again later.
WITH recorded AS (
    UPDATE {schema}.cron
       SET last_tick = to_timestamp(%(tick)s::float8)
     WHERE name = %(name)s AND coalesce(last_tick, created_at) < to_timestamp(%(tick)s::float8)
       AND expression = %(expression)s AND timezone = %(timezone)s AND paused_at IS NULL
    RETURNING last_tick
), clock AS MATERIALIZED (
    {clock} FROM recorded
), {tick_job: recorded}
SELECT e.id, (SELECT found.job_id FROM found WHERE NOT found.free) AS holder,
       recorded.last_tick IS DISTINCT FROM to_timestamp(%(tick)s::float8)
       OR e.id IS NULL AND EXISTS (SELECT FROM numbered) AS suppressed,
       (SELECT {schema}.wake(ARRAY[e.queue]) WHERE e.state = 'available')
  FROM recorded
  LEFT JOIN enqueued AS e ON true;

-- name: run
-- Enqueues the job of a schedule now, as a tick does, and records who has asked for it. The ticks of the schedule stay as they
-- are, and a pause does not prevent it. Returns the job; without a new one, the job that holds its key, or no row if the key
-- was taken while this statement ran.
WITH clock AS MATERIALIZED (
    {clock}
), {tick_job: clock}, audited AS (
    {audit: jsonb_build_object('schedules', jsonb_build_array(%(name)s::text), 'jobs', jsonb_agg(c.id)), count(*)::integer,
            'schedule.run' FROM enqueued AS c}
)
SELECT e.id, false AS held, (SELECT {schema}.wake(ARRAY[e.queue]) WHERE e.state = 'available') FROM enqueued AS e
 UNION ALL
SELECT found.job_id, true, NULL FROM found WHERE NOT found.free;

-- name: pause
-- Pauses schedules that are not paused yet; returns them.
WITH paused AS (
    UPDATE {schema}.cron
       SET paused_at = clock_timestamp(), paused_by = %(actor)s::text, pause_reason = %(note)s::text
     WHERE name = ANY (ARRAY (
            SELECT c.name FROM {schema}.cron AS c
             WHERE c.name = ANY (%(names)s::text[]) AND c.paused_at IS NULL
             ORDER BY c.name
               FOR UPDATE))
    RETURNING name
), audited AS (
    {audit: jsonb_build_object('schedules', jsonb_agg(c.name ORDER BY c.name)), NULL, 'schedule.pause' FROM paused AS c}
)
SELECT name FROM paused;

-- name: resume
-- Resumes paused schedules; returns them. Ticks of the time of the pause are not enqueued.
WITH resumed AS (
    UPDATE {schema}.cron
       SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, resumed_at = clock_timestamp()
     WHERE name = ANY (ARRAY (
            SELECT c.name FROM {schema}.cron AS c
             WHERE c.name = ANY (%(names)s::text[]) AND c.paused_at IS NOT NULL
             ORDER BY c.name
               FOR UPDATE))
    RETURNING name
), audited AS (
    {audit: jsonb_build_object('schedules', jsonb_agg(c.name ORDER BY c.name)), NULL, 'schedule.resume' FROM resumed AS c}
)
SELECT name FROM resumed;

-- name: delete_unused
-- Deletes schedules that no live node declares, except paused ones: a later release may declare them again.
DELETE FROM {schema}.cron AS c
 WHERE NOT EXISTS (SELECT FROM {schema}.node AS n WHERE n.state -> 'cron' ? c.name)
   AND c.declared_at < clock_timestamp() - make_interval(secs => 300) AND c.paused_at IS NULL
   AND coalesce(c.last_tick, c.created_at) < clock_timestamp() - make_interval(days => 31);
