-- Why a job does not run, or how it ended.

-- name: facts
-- What an unfinished job depends on. `locker` is the transaction that has locked its row: xmax of a row names the last one,
-- which holds a lock on its own id while it runs; a prepared one has no pid. `node` runs the job, `serving` are the live
-- nodes that serve its queue. A node is live until its lease ends.
SELECT extract(epoch FROM clock_timestamp())::float8 AS now,
       extract(epoch FROM j.run_at)::float8 AS run_at, extract(epoch FROM j.expires_at)::float8 AS expires_at,
       j.unknown_task_count, j.seq, j.overrides::text AS overrides,
       pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') = 'on' AS read_only,
       (SELECT jsonb_build_object('at', extract(epoch FROM q.paused_at), 'by', q.paused_by, 'reason', q.pause_reason)
          FROM {schema}.queue AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL)::text AS pause,
       (SELECT jsonb_build_object('task', k.task, 'key', k.key)
          FROM {schema}.unique_key AS k WHERE k.job_id = j.id AND j.holds_key LIMIT 1)::text AS key,
       (SELECT jsonb_build_object(
                   'pid', l.pid, 'role', a.usename, 'application', a.application_name, 'client', a.client_addr,
                   'state', a.state, 'query', left(a.query, 200),
                   'seconds', extract(epoch FROM clock_timestamp() - a.xact_start))
          FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
         WHERE l.locktype = 'transactionid' AND l.transactionid = j.xmax AND l.granted AND l.mode = 'ExclusiveLock'
           AND l.pid IS DISTINCT FROM pg_backend_pid()
         LIMIT 1)::text AS locker,
       (SELECT jsonb_build_object(
                   'name', n.name, 'lease', n.lease_seconds, 'state', n.state,
                   'heartbeat_at', extract(epoch FROM n.heartbeat_at),
                   'silence', extract(epoch FROM clock_timestamp()) - extract(epoch FROM n.heartbeat_at))
          FROM {schema}.node AS n WHERE n.id = j.node)::text AS node,
       (SELECT jsonb_agg(jsonb_build_object(
                             'id', n.id, 'name', n.name, 'workers', n.worker_count, 'queues', n.queues, 'state', n.state,
                             'pause', CASE WHEN p.node IS NOT NULL THEN jsonb_build_object(
                                 'at', extract(epoch FROM p.paused_at), 'by', p.paused_by, 'reason', p.pause_reason) END)
                         ORDER BY n.name, n.id)
          FROM {schema}.node AS n
          LEFT JOIN {schema}.paused_node AS p ON p.node = n.id
         WHERE j.queue = ANY (n.queues)
           AND {live: n})::text AS serving,
       (SELECT count(*)::int FROM {schema}.node AS n
         WHERE {live: n}) AS live_nodes
  FROM {schema}.job AS j
 WHERE j.id = %(id)s;

-- name: ahead
-- How many available jobs of its queue are claimed before a job, up to a limit. They are counted backwards from the job,
-- because an old snapshot keeps dead entries at the beginning of the queue; so are the queues that are served before.
SELECT (SELECT count(*)::int
          FROM (SELECT FROM {schema}.job AS j
                 WHERE j.state = 'available' AND j.queue = %(queue)s
                   AND (j.priority, j.seq) < (%(priority)s::smallint, %(seq)s::bigint)
                 ORDER BY j.priority DESC, j.seq DESC
                 LIMIT %(limit)s) AS earlier) AS jobs,
       ARRAY (
           SELECT before.name
             FROM unnest(%(before)s::text[]) AS before (name)
            WHERE (SELECT true FROM {schema}.job AS j
                    WHERE j.state = 'available' AND j.queue = before.name ORDER BY j.priority DESC, j.seq DESC LIMIT 1)
              AND NOT EXISTS (SELECT FROM {schema}.queue AS q WHERE q.name = before.name AND q.paused_at IS NOT NULL)
       ) AS queues;

-- name: counted
-- The attempts at jobs of a queue that the nodes have counted in the last minutes, and the length of that period.
SELECT sum(coalesce(s.succeeded, 0) + coalesce(s.retried, 0) + coalesce(s.raised, 0) + coalesce(s.timed_out, 0))::float8 AS jobs,
       extract(epoch FROM max(s.at) - min(s.at))::float8 + 60 AS seconds
  FROM {schema}.series AS e
  JOIN {schema}.stat AS s ON s.series = e.id
 WHERE e.queue = %(queue)s AND s.width = 1 AND s.at > statement_timestamp() - make_interval(secs => %(window)s)
HAVING sum(coalesce(s.succeeded, 0) + coalesce(s.retried, 0) + coalesce(s.raised, 0) + coalesce(s.timed_out, 0)) > 0;

-- name: mean_run
SELECT {earlier_mean_run: %(queue)s};

-- name: throughput
-- How many of the newest jobs have ended in this queue within the last minutes, and since when: for a queue that was not
-- counted yet.
SELECT count(*)::int AS jobs, {seconds_since: min(h.finished_at)} AS seconds
  FROM (SELECT n.queue, n.finished_at FROM {schema}.job_history AS n ORDER BY n.id DESC LIMIT 2000) AS h
 WHERE h.queue = %(queue)s AND h.finished_at > statement_timestamp() - make_interval(secs => %(window)s);
