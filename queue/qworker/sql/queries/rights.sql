-- Grants, revokes and checks the privileges of roles.

-- name: grant
GRANT {privileges} ON {type} {object} TO {role};

-- name: revoke
REVOKE {privileges} ON {type} {object} FROM {role};

-- name: owner
-- The owner of the tables, and whether this role may grant privileges on them. For any other role GRANT may only warn.
SELECT pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE')
  FROM pg_class AS c
 WHERE c.oid = '{schema}.job'::regclass;

-- name: exists
SELECT r.rolname FROM pg_roles AS r WHERE r.rolname = %(role)s;

-- name: record
{audit: jsonb_build_object('roles', jsonb_build_array(%(role)s::text), 'as', %(kinds)s::text[]), NULL, %(action)s::text
          FROM (SELECT 1) AS c};

-- name: lacking
-- Those of these privileges that this role lacks. A column is NULL if the privilege is one on the whole object.
SELECT concat(n.privilege, ' (' || n.column_name || ')', ' on ', coalesce(nullif(n.name, ''), 'the schema'))
  FROM unnest(%(types)s::text[], %(names)s::text[], %(privileges)s::text[], %(columns)s::text[])
       WITH ORDINALITY AS n (type, name, privilege, column_name, number)
 WHERE NOT CASE
       WHEN n.type = 'SCHEMA' THEN has_schema_privilege('{schema}', n.privilege)
       WHEN n.type = 'SEQUENCE' THEN has_sequence_privilege('{schema}.' || n.name, n.privilege)
       WHEN n.type = 'FUNCTION' THEN has_function_privilege(('{schema}.' || n.name)::regproc, n.privilege)
       WHEN n.column_name IS NOT NULL THEN has_column_privilege('{schema}.' || n.name, n.column_name, n.privilege)
       ELSE has_table_privilege('{schema}.' || n.name, n.privilege) END
 ORDER BY n.number;
