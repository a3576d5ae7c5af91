-- Requests for the stacks of running jobs. The scheduler of the node that runs the job sees them in its poll.

CREATE TABLE {schema}.stack_request (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job          bigint NOT NULL,
    node         bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at  timestamptz,
    pid          integer,
    ran          real,
    worker       text,
    stacks       text,
    problem      text
) WITH (autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

COMMENT ON COLUMN {schema}.stack_request.stacks IS 'The stacks of all threads of the worker; NULL if there is a problem.';
COMMENT ON COLUMN {schema}.stack_request.problem IS 'Why there are no stacks.';
