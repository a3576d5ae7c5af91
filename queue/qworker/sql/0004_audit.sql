-- Who did what by hand: a row for each statement that retries, cancels, discards or edits jobs, pauses or resumes, and so on.

-- `at` and `role` always have their defaults, because no role but the owner may INSERT into these columns: a client states
-- the actor, but the server knows as which role it is connected. Nothing updates a row, and only delete_old_audit deletes.
CREATE TABLE {schema}.audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL CHECK (actor <> '' AND length(actor) <= 200),
    role    text NOT NULL DEFAULT (CASE WHEN current_user = session_user THEN session_user::text
                                        ELSE session_user || ' (SET ROLE ' || current_user || ')' END),
    via     text NOT NULL CHECK (via IN ('api', 'cli', 'web', 'top', 'django', 'operation')),
    address text CHECK (length(address) <= 200),
    action  text NOT NULL CHECK (action <> '' AND length(action) <= 50),
    target  jsonb NOT NULL CHECK (jsonb_typeof(target) = 'object'),
    jobs    integer CHECK (jobs >= 0),
    note    text CHECK (length(note) <= 1000),
    request text CHECK (length(request) BETWEEN 32 AND 64)
);

COMMENT ON TABLE {schema}.audit IS 'Actions that a person or an application took by hand.';
COMMENT ON COLUMN {schema}.audit.actor IS 'The signed-in user if the caller names one, or else user@host of the process.';
COMMENT ON COLUMN {schema}.audit.role IS 'The role of the database session, as the server knows it.';
COMMENT ON COLUMN {schema}.audit.via IS 'Where the action was taken: api, cli, web, top, django or operation.';
COMMENT ON COLUMN {schema}.audit.action IS 'The kind of thing and what was done: job.retry, queue.pause, schedule.run.';
COMMENT ON COLUMN {schema}.audit.target IS 'What it was done to: {"jobs": [1, 2]}, {"queues": ["mail"]}.';
COMMENT ON COLUMN {schema}.audit.jobs IS 'The number of jobs that were changed; NULL if the action is not one on jobs.';

COMMENT ON COLUMN {schema}.audit.request IS 'The request that must act only once: 32 characters that name it, then what it asks for.';

-- A request that is sent twice acts once: the statement that would act again cannot store its entry.
CREATE UNIQUE INDEX audit_request ON {schema}.audit (substr(request, 1, 32)) WHERE request IS NOT NULL;

CREATE INDEX audit_at ON {schema}.audit (at, id);
CREATE INDEX audit_action ON {schema}.audit (action, at, id);

-- The jobs of an entry.
CREATE FUNCTION {schema}.audit_jobs(target jsonb) RETURNS bigint[]
LANGUAGE sql
IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY (SELECT jsonb_array_elements_text(target -> 'jobs')::bigint);

-- Serves the search for a job that was changed with many others. Of an entry with few jobs, each has a row in audit_key.
-- Without a list of pending entries, which every search would read.
CREATE INDEX audit_bulk ON {schema}.audit USING gin ({schema}.audit_jobs(target)) WITH (fastupdate = off) WHERE jobs > 10;

-- What entries are found by, newest first. Each entry has a row for each key, where `other` is empty, and for each two of them.
CREATE TABLE {schema}.audit_key (
    key    text COLLATE "C" NOT NULL,
    other  text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    at     timestamptz NOT NULL,
    id     bigint NOT NULL,
    PRIMARY KEY (key, other, action, at, id)
);

COMMENT ON TABLE {schema}.audit_key IS 'What entries of the audit are found by; written by a trigger.';
COMMENT ON COLUMN {schema}.audit_key.key IS 'A job, queue, schedule, node, group of errors, filter or actor: queues=mail.';
COMMENT ON COLUMN {schema}.audit_key.other IS 'A second one that the entry has, or an empty string.';

-- The key of one thing. A long one, such as a filter, would not fit into an index.
CREATE FUNCTION {schema}.audit_key(kind text, name text) RETURNS text
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN kind || CASE WHEN length(name) <= 100 THEN '=' || name ELSE '#' || md5(name) END;

-- The keys of an entry, and each two of them, in the order of _TARGETS in audit.py: a search names the first one first.
CREATE FUNCTION {schema}.audit_keys(target jsonb, jobs integer, actor text) RETURNS TABLE (key text, other text)
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH one AS MATERIALIZED (
        SELECT k.rank, {schema}.audit_key(k.kind, v.name) AS key
          FROM (VALUES (1, 'jobs'), (2, 'errors'), (3, 'schedules'), (4, 'queues'), (5, 'nodes'), (6, 'filter')) AS k (rank, kind)
         CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(audit_keys.target -> k.kind)
                    WHEN 'array' THEN audit_keys.target -> k.kind
                    WHEN 'string' THEN jsonb_build_array(audit_keys.target -> k.kind) ELSE '[]' END) AS v (name)
         WHERE k.rank > 1 OR coalesce(audit_keys.jobs, 0) <= 10 -- else see the index audit_bulk
         UNION
        SELECT 7, {schema}.audit_key('actor', audit_keys.actor)
    )
    SELECT one.key, '' FROM one
     UNION ALL
    SELECT one.key, second.key FROM one JOIN one AS second ON second.rank > one.rank;
END
$$;

-- It runs with the privileges of the owner: no other role needs to be able to write the keys, or could forge one.
CREATE FUNCTION {schema}.record_audit_keys() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO {schema}.audit_key (key, other, action, at, id)
    SELECT k.key, k.other, new.action, new.at, new.id
      FROM {schema}.audit_keys(new.target, new.jobs, new.actor) AS k;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION {schema}.record_audit_keys FROM PUBLIC;

CREATE TRIGGER record_audit_keys AFTER INSERT ON {schema}.audit
    FOR EACH ROW EXECUTE FUNCTION {schema}.record_audit_keys();

-- The entries of a job that was changed with many others. Only a bitmap scan reads audit_bulk, and sessions of ours turn them off.
CREATE FUNCTION {schema}.audit_of_bulk(job bigint) RETURNS SETOF {schema}.audit
LANGUAGE plpgsql
STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = on
SET enable_seqscan = off
SET enable_indexscan = off
AS $$
BEGIN
    RETURN QUERY
    SELECT a.* FROM {schema}.audit AS a
     WHERE a.jobs > 10 AND {schema}.audit_jobs(a.target) @> ARRAY[audit_of_bulk.job];
END
$$;

-- Deletes up to 2,000 entries that are more than 400 days old, and their keys; returns their number. It runs with the
-- privileges of its owner, so that no other role needs to be able to delete what is younger.
CREATE FUNCTION {schema}.delete_old_audit() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH old AS MATERIALIZED (
        SELECT a.id, a.at, a.actor, a.action, a.target, a.jobs
          FROM {schema}.audit AS a
         WHERE a.at < (SELECT clock_timestamp() - interval '400 days')
         ORDER BY a.at
         LIMIT 2000
           FOR UPDATE SKIP LOCKED
    ), keys AS (
        DELETE FROM {schema}.audit_key
         WHERE ctid = ANY (ARRAY (
                SELECT found.ctid
                  FROM old
                 CROSS JOIN LATERAL {schema}.audit_keys(old.target, old.jobs, old.actor) AS n
                 CROSS JOIN LATERAL (
                        SELECT k.ctid FROM {schema}.audit_key AS k
                         WHERE k.key = n.key AND k.other = n.other AND k.action = old.action AND k.at = old.at
                           AND k.id = old.id
                         LIMIT 1) AS found))
    )
    DELETE FROM {schema}.audit WHERE id = ANY (ARRAY (SELECT old.id FROM old));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

REVOKE EXECUTE ON FUNCTION {schema}.delete_old_audit FROM PUBLIC;
