-- Checks the privileges of the role of a node.

-- name: lacking
-- The privileges that a node needs and its role lacks.
SELECT needed.privilege || ' on ' || needed.name
  FROM (VALUES ('job', 'SELECT'), ('job', 'INSERT'), ('job', 'UPDATE'), ('job', 'DELETE'),
               ('node', 'SELECT'), ('node', 'INSERT'), ('node', 'UPDATE'), ('node', 'DELETE'),
               ('cron', 'SELECT'), ('cron', 'INSERT'), ('cron', 'UPDATE'), ('cron', 'DELETE'),
               ('idle_node', 'SELECT'), ('idle_node', 'INSERT'), ('idle_node', 'DELETE'),
               ('queue', 'SELECT'),
               ('unique_key', 'SELECT'), ('unique_key', 'INSERT'), ('unique_key', 'UPDATE'), ('unique_key', 'DELETE'),
               ('job_history', 'SELECT'), ('job_history', 'INSERT'), ('job_history_00', 'TRUNCATE'),
               ('jobs', 'SELECT')) AS needed (name, privilege)
 WHERE NOT has_table_privilege('{schema}.' || needed.name, needed.privilege)
 UNION ALL
SELECT 'USAGE on ' || needed.name FROM (VALUES ('job_seq'), ('job_id_seq')) AS needed (name)
 WHERE NOT has_sequence_privilege('{schema}.' || needed.name, 'USAGE');
