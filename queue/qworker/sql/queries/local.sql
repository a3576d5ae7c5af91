-- Settings that apply until the transaction ends.

-- name: change
-- Changes a setting; returns its value before.
WITH old AS MATERIALIZED (
    SELECT pg_catalog.current_setting(%(name)s) AS value
), changed AS MATERIALIZED (
    SELECT pg_catalog.set_config(%(name)s, %(value)s, true) FROM old
)
SELECT old.value FROM old, changed;
