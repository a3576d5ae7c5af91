"""What another role may create in a schema of the search_path: functions and operators that fit better."""

import re
from importlib.resources import files

import psycopg

#: Types of our columns and parameters; those of the schema come once it is there.
TYPES = (
    "smallint", "integer", "bigint", "real", "float8", "numeric", "text", "boolean", "jsonb", "timestamptz", "interval",
    "text[]", "bigint[]", "smallint[]", "name", "regclass", "tid",
)  # fmt: skip
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "&", "||", "->", "->>", "-", "+", "*", "/", "%", "?", "~~")
#: Written like functions, but parts of the grammar, and found without a search_path.
GRAMMAR = frozenset({
    "and", "all", "any", "array", "as", "by", "case", "cast", "check", "coalesce", "conflict", "enum", "exists",
    "extract", "from", "greatest", "in", "join", "key", "lateral", "least", "list", "materialized", "not", "on", "or",
    "over", "returning", "select", "set", "then", "unique", "values", "when", "where", "with",
})  # fmt: skip

# The owner does not matter to the search for a name; whoever may create in the schema could be it.
_PLANT = """
DO $plant$
DECLARE
    types text[] := %s; operators text[] := %s; functions text[] := %s;
    l text; r text; o text; f text;
BEGIN
    FOREACH l IN ARRAY types LOOP
        FOREACH f IN ARRAY functions LOOP
            EXECUTE format('CREATE OR REPLACE FUNCTION public.%%I(%%s) RETURNS boolean LANGUAGE plpgsql'
                           ' AS $$ BEGIN RAISE ''planted''; END $$', f, l);
        END LOOP;
        FOREACH r IN ARRAY types LOOP
            FOREACH f IN ARRAY functions || ARRAY['planted'] LOOP
                EXECUTE format('CREATE OR REPLACE FUNCTION public.%%I(%%s, %%s) RETURNS boolean LANGUAGE plpgsql'
                               ' AS $$ BEGIN RAISE ''planted''; END $$', f, l, r);
            END LOOP;
            FOREACH o IN ARRAY operators LOOP
                EXECUTE format('CREATE OPERATOR public.%%s (leftarg = %%s, rightarg = %%s, function = public.planted)',
                               o, l, r);
            END LOOP;
        END LOOP;
    END LOOP;
END
$plant$
"""


def statements(text: str) -> str:
    """Return a text of SQL without its comments and strings."""
    return re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--.*", "", text))


def calls(text: str) -> list[tuple[str, str]]:
    """Return what a text of SQL calls: the qualification, "" where there is none, and the name."""
    found = re.findall(r"(?:([\w{}]+)\s*\.\s*)?\b([a-z_]\w*)\s*\(", statements(text))
    return [(where, name) for where, name in found if where or name not in GRAMMAR]


def functions() -> list[str]:
    """Return the names of all functions of PostgreSQL's own that our SQL may call."""
    folder = files("qworker").joinpath("sql")
    texts = [file.read_text() for file in (*folder.iterdir(), *folder.joinpath("queries").iterdir()) if file.is_file()]
    return sorted({name for text in texts for where, name in calls(text) if where in ("", "pg_catalog")})


def plant(dsn: str, *more: str) -> None:
    """Fill the schema public with traps for all types, and for those of `more`: whoever calls one gets an error."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        known = {name for (name,) in conn.execute("SELECT DISTINCT proname FROM pg_proc")}
        conn.execute("SET search_path = pg_catalog")
        traps = [name for name in functions() if name in known]
        assert {"nextval", "jsonb_build_object", "unnest", "count", "clock_timestamp"} <= set(traps)
        cursor = psycopg.ClientCursor(conn)
        cursor.execute(_PLANT, [[*TYPES, *more], list(OPERATORS), traps])
