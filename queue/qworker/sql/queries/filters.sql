-- Parts of the conditions that a filter becomes: what its keys compare, how values are compared, and how conditions are
-- combined. `qworker.filters.conditions` joins them; each value is a parameter. `j` is a row of the view `jobs`.

-- name: now
-- The time to which durations relate; a subquery is executed once, not for each row. Times are compared in seconds because
-- intervals cannot be infinite before PostgreSQL 17.
(SELECT coalesce(%(now)s::float8, extract(epoch FROM clock_timestamp())::float8))

-- name: id
j.id

-- name: state
j.state

-- name: queue
j.queue

-- name: task
j.task

-- name: tag
j.tags

-- name: error
-- The type of the last error, also without its module, and the cause of a crash.
ARRAY[j.errors -> -1 ->> 'type', regexp_replace(j.errors -> -1 ->> 'type', '^.*\.', ''), j.errors -> -1 ->> 'cause']

-- name: message
j.errors -> -1 ->> 'message'

-- name: fp
j.fingerprint

-- name: age
{now} - extract(epoch FROM j.enqueued_at)::float8

-- name: finished
{now} - extract(epoch FROM j.finished_at)::float8

-- name: wait
-- A job that is scheduled for later does not wait yet.
CASE WHEN j.claimed_at IS NOT NULL THEN extract(epoch FROM j.claimed_at)::float8
     WHEN j.state IN ('available', 'scheduled', 'blocked') THEN {now} END
- extract(epoch FROM coalesce(j.run_at, j.enqueued_at))::float8

-- name: run
CASE j.state WHEN 'running' THEN {now} - extract(epoch FROM j.claimed_at)::float8
             WHEN 'failed' THEN extract(epoch FROM j.finished_at)::float8 - extract(epoch FROM j.claimed_at)::float8
             ELSE j.duration::float8 END

-- name: attempt
j.attempt

-- name: prio
j.priority

-- name: node
ARRAY[j.node::text, (SELECT n.name FROM {schema}.node AS n WHERE n.id = j.node)]

-- name: cron
j.meta ->> 'cron'

-- name: enqueued
extract(epoch FROM j.enqueued_at)::float8

-- name: args
j.args #>> %(path)s::text[]

-- name: args_number
CASE WHEN jsonb_typeof(j.args #> %(path)s::text[]) = 'number' THEN (j.args #>> %(path)s::text[])::numeric END

-- name: is_one_of
{compared} = ANY (%(texts)s::text[])

-- name: begins_with
{compared} ^@ ANY (%(prefixes)s::text[])

-- name: contains
strpos(lower({compared}), lower(%(value)s::text)) > 0

-- name: has_one_of
{compared} && %(texts)s::text[]

-- name: has_beginning
EXISTS (SELECT FROM unnest({compared}) AS element WHERE element ^@ ANY (%(prefixes)s::text[]))

-- name: equals_one_of
{compared} = ANY (%(numbers)s::bigint[])

-- name: between
{compared} BETWEEN %(low)s AND %(high)s

-- name: greater
{compared} > %(value)s

-- name: greater_or_equal
{compared} >= %(value)s

-- name: less
{compared} < %(value)s

-- name: less_or_equal
{compared} <= %(value)s

-- name: retrying
j.state = 'scheduled' AND j.attempt > 0

-- name: by_cron
j.meta ? 'cron'

-- name: by_hook
j.is_hook

-- name: everything
true

-- name: or
OR

-- name: and
AND

-- name: group
({condition})

-- name: none_of
({condition}) IS NOT TRUE
