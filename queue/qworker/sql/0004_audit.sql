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

-- Serves the search for a job, a queue or a schedule: target @> '{"jobs": [1]}'.
CREATE INDEX audit_target ON {schema}.audit USING gin (target jsonb_path_ops);
CREATE INDEX audit_actor ON {schema}.audit (actor, id);
CREATE INDEX audit_at ON {schema}.audit (at);

-- Deletes up to 10,000 rows that are more than 400 days old; returns their number. It runs with the privileges of its owner,
-- so that no other role needs to be able to delete what is younger.
CREATE FUNCTION {schema}.delete_old_audit() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM {schema}.audit
     WHERE id = ANY (ARRAY (
            SELECT a.id FROM {schema}.audit AS a
             WHERE a.at < clock_timestamp() - interval '400 days'
             ORDER BY a.at
             LIMIT 10000
               FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

REVOKE EXECUTE ON FUNCTION {schema}.delete_old_audit FROM PUBLIC;
