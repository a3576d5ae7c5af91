-- Statements that wait for the end of a job. They also run on callers' connections, see admin.sql.

-- name: outcome
-- The state, result and last error of a job. LIMIT ends the scan before the history if the job has not ended.
SELECT state::text, NULL AS result, (errors -> -1)::text AS error, task FROM {schema}.job WHERE id = %(id)s
 UNION ALL
(SELECT state::text, result::text, (errors -> -1)::text, task FROM {schema}.job_history WHERE id = %(id)s
  ORDER BY finished_at DESC LIMIT 1)
 LIMIT 1;

-- name: unserved
-- The queue of a waiting job from which no node claims, and the live nodes that serve it but are paused. A node is live until
-- its lease ends.
SELECT j.queue, ARRAY (SELECT n.id FROM {schema}.node AS n WHERE j.queue = ANY (n.queues) AND {live: n} ORDER BY n.id) AS paused
  FROM {schema}.job AS j
 WHERE j.id = %(id)s AND j.state IN ('available', 'scheduled')
   AND NOT EXISTS (
        SELECT FROM {schema}.node AS n
         WHERE j.queue = ANY (n.queues)
           AND {working: n});
