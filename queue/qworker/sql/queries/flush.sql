-- Statements that delete all jobs, between the tests of an application.

-- name: used
-- The tables with data that belongs to jobs. Truncating a table costs more than looking whether it has a page.
SELECT c.relname
  FROM pg_catalog.pg_class AS c
 WHERE c.relnamespace = pg_catalog.to_regnamespace('{schema}') AND c.relkind = 'r'
   AND c.relname NOT IN ('migration', 'node', 'idle_node') AND pg_catalog.pg_relation_size(c.oid) > 0;

-- name: truncate
TRUNCATE {tables};
