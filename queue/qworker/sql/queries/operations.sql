-- Operations: actions on all jobs that match a filter. The actions themselves are statements of admin.sql.

-- name: create
-- An empty notification, which no queue has as its name, makes the nodes poll at once.
WITH created AS (
    INSERT INTO {schema}.operation (action, filter, options, upper_id, below, rate, expected, actor, address, note)
    SELECT %(action)s::text, %(filter)s::text, %(options)s::jsonb, u.upper_id, u.upper_id + 1, %(rate)s::real,
           %(expected)s::integer, %(actor)s::text, %(address)s::text, %(note)s::text
      FROM (SELECT %(upper_id)s::bigint AS upper_id) AS u
    RETURNING *
), audited AS (
    {audit: jsonb_build_object('operation', min(c.id), 'filter', min(c.filter)), NULL, 'operation.' || min(c.action) FROM created AS c}
)
SELECT {operation_columns}, pg_notify('{schema}', '') FROM created AS o;

-- name: lock_next
-- An operation whose next slice may begin, locked until the transaction ends; none if another session has locked them all.
SELECT {operation_columns}
  FROM {schema}.operation AS o
 WHERE o.state = 'running' AND o.next_at <= (SELECT clock_timestamp()) AND (%(id)s::bigint IS NULL OR o.id = %(id)s)
 ORDER BY o.next_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED;

-- name: limits
-- Of one slice; they apply until the transaction ends.
SELECT set_config('statement_timeout', '2s', true), set_config('lock_timeout', '200ms', true);

-- name: unlocked
-- The jobs that no other session has locked; they are locked now.
SELECT j.id FROM {schema}.job AS j WHERE j.id = ANY (%(ids)s::bigint[]) ORDER BY j.id FOR UPDATE SKIP LOCKED;

-- name: advance
-- The next slice may begin when the rate allows it. Time in which no node was alive is not made up for.
UPDATE {schema}.operation AS o
   SET below = %(below)s, done = o.done + %(done)s, skipped = o.skipped + %(skipped)s, failed = o.failed + %(failed)s,
       error = coalesce(%(error)s, o.error), state = %(state)s,
       finished_at = CASE WHEN %(state)s <> 'running' THEN clock_timestamp() END,
       next_at = greatest(o.next_at, clock_timestamp() - interval '1 s')
                 + make_interval(secs => coalesce((%(done)s + %(skipped)s + %(failed)s) / o.rate::float8, 0))
 WHERE o.id = %(id)s
RETURNING {operation_columns};

-- name: postpone
-- After a slice that the database has refused as a whole.
UPDATE {schema}.operation AS o
   SET next_at = clock_timestamp() + make_interval(secs => %(seconds)s::float8), error = %(error)s
 WHERE o.id = %(id)s AND o.state = 'running';

-- name: stop
WITH stopped AS (
    UPDATE {schema}.operation AS o SET state = 'stopped', finished_at = clock_timestamp()
     WHERE o.id = %(id)s AND o.state = 'running'
    RETURNING *
), audited AS (
    {audit: jsonb_build_object('operation', min(c.id)), NULL, 'operation.stop' FROM stopped AS c}
)
SELECT {operation_columns} FROM stopped AS o;

-- name: find
-- The operations below a given id, the newest first, or one of them.
SELECT {operation_columns}
  FROM {schema}.operation AS o
 WHERE (%(id)s::bigint IS NULL OR o.id = %(id)s) AND (%(running)s IS NOT TRUE OR o.state = 'running')
   AND (%(below)s::bigint IS NULL OR o.id < %(below)s)
 ORDER BY o.id DESC
 LIMIT %(limit)s;

-- name: delete_old
-- Deletes operations that ended more than 400 days ago, as the audit does.
DELETE FROM {schema}.operation
 WHERE state <> 'running' AND finished_at < clock_timestamp() - interval '400 days';
