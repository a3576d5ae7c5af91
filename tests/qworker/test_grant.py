"""What is granted to each kind of role is what rights.py says, on every object of the schema, and nothing else."""

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import rights
from qworker.actor import acting_as
from qworker.db.connection import connect
from qworker.errors import ConfigurationError, SchemaError
from qworker.migrations import migrate
from qworker.rights import FUNCTIONS, PUBLIC_FUNCTIONS, SEQUENCES, TABLES, Kind
from qworkerd.embedded import EmbeddedPostgres
from tests import roles
from tests.database import Database

#: Every privilege that a role has on a relation or one of its columns, and on a function.
TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
OBJECTS = """
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname
      FROM pg_class WHERE relnamespace = 'qworker'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
     UNION ALL
    SELECT 'FUNCTION', proname FROM pg_proc WHERE pronamespace = 'qworker'::regnamespace
"""
HELD = """
    SELECT 'TABLE', c.relname, p.privilege, NULL
      FROM pg_class AS c, unnest(%(table_privileges)s::text[]) AS p (privilege)
     WHERE c.relnamespace = 'qworker'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND has_table_privilege(%(role)s, c.oid, p.privilege)
     UNION ALL
    SELECT 'TABLE', c.relname, p.privilege, a.attname
      FROM pg_class AS c
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped,
           unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p (privilege)
     WHERE c.relnamespace = 'qworker'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND has_column_privilege(%(role)s, c.oid, a.attnum, p.privilege)
       AND NOT has_table_privilege(%(role)s, c.oid, p.privilege)
     UNION ALL
    SELECT 'SEQUENCE', c.relname, p.privilege, NULL
      FROM pg_class AS c, unnest('{SELECT,USAGE,UPDATE}'::text[]) AS p (privilege)
     WHERE c.relnamespace = 'qworker'::regnamespace AND c.relkind = 'S'
       AND has_sequence_privilege(%(role)s, c.oid, p.privilege)
     UNION ALL
    SELECT 'FUNCTION', f.proname, 'EXECUTE', NULL
      FROM pg_proc AS f
     WHERE f.pronamespace = 'qworker'::regnamespace AND has_function_privilege(%(role)s, f.oid, 'EXECUTE')
     UNION ALL
    SELECT 'SCHEMA', '', p.privilege, NULL
      FROM unnest('{USAGE,CREATE}'::text[]) AS p (privilege)
     WHERE has_schema_privilege(%(role)s, 'qworker', p.privilege)
"""
Held = set[tuple[str, str, str, str | None]]
#: What everybody has who may use the schema.
PUBLIC: Held = {("FUNCTION", name, "EXECUTE", None) for name in PUBLIC_FUNCTIONS}


@pytest.fixture(scope="module")
def granted(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    with roles.guarded_database(postgres_server) as database:
        yield database


@pytest.fixture
def owner(granted: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(granted.dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def other(owner: psycopg.Connection[Any]) -> Iterator[str]:
    """A role that has nothing yet."""
    owner.execute("CREATE ROLE \"O'Brien; x\" LOGIN PASSWORD 'pw'")
    yield "O'Brien; x"
    owner.execute('DROP OWNED BY "O\'Brien; x"')
    owner.execute('DROP ROLE "O\'Brien; x"')


def held(conn: psycopg.Connection[Any], role: str) -> Held:
    return set(conn.execute(HELD, {"role": role, "table_privileges": list(TABLE_PRIVILEGES)}))


def declared(*kinds: Kind) -> Held:
    return PUBLIC | {
        (right.type, right.name, privilege, column)
        for kind in kinds for right in rights.rights_of(kind) for privilege, column in right.each()
    }  # fmt: skip


def test_every_object_of_the_schema_has_an_entry(owner: psycopg.Connection[Any]) -> None:
    """Whoever adds a table, a sequence or a function says in rights.py who may do what with it."""
    found = {(kind, name) for kind, name in owner.execute(OBJECTS) if not name.startswith(("job_history_", "job_log_"))}
    assert found == {
        *(("TABLE", name) for name in TABLES), *(("SEQUENCE", name) for name in SEQUENCES),
        *(("FUNCTION", name) for name in {*FUNCTIONS, *PUBLIC_FUNCTIONS}),
    }  # fmt: skip


def test_every_function_of_the_owner_is_closed_to_the_public(owner: psycopg.Connection[Any]) -> None:
    found = owner.execute(
        "SELECT proname, prosecdef FROM pg_proc WHERE pronamespace = 'qworker'::regnamespace ORDER BY proname"
    ).fetchall()
    assert {name for name, definer in found if definer} == set(FUNCTIONS)


@pytest.mark.parametrize("kind", Kind)
def test_a_role_has_what_its_kind_needs_and_nothing_else(owner: psycopg.Connection[Any], kind: Kind) -> None:
    assert held(owner, kind) == declared(kind)


@pytest.mark.parametrize("kind", Kind)
def test_revoking_takes_everything_away(owner: psycopg.Connection[Any], other: str, kind: Kind) -> None:
    for _ in range(2):
        rights.grant(owner, other, [kind])
        assert held(owner, other) == declared(kind)
    rights.grant(owner, other, [kind], revoke=True)
    assert held(owner, other) == PUBLIC


def test_a_role_may_be_of_two_kinds(owner: psycopg.Connection[Any], other: str) -> None:
    rights.grant(owner, other, [Kind.PRODUCER, Kind.VIEWER])
    assert held(owner, other) == declared(Kind.PRODUCER, Kind.VIEWER)


def test_a_grant_is_recorded(owner: psycopg.Connection[Any], other: str) -> None:
    with acting_as("alice", via="cli"):
        rights.grant(owner, other, [Kind.VIEWER, Kind.PRODUCER])
        rights.grant(owner, other, [Kind.VIEWER], revoke=True)
    found = owner.execute("SELECT actor, action, target, jobs FROM qworker.audit ORDER BY id DESC LIMIT 2").fetchall()
    assert found == [
        ("alice", "db.revoke", {"roles": [other], "as": ["viewer"]}, None),
        ("alice", "db.grant", {"roles": [other], "as": ["viewer", "producer"]}, None),
    ]


@pytest.mark.parametrize("kind", Kind)
def test_only_the_owner_may_grant(granted: Database, owner: psycopg.Connection[Any], kind: Kind) -> None:
    with (
        connect(roles.login(granted.dsn, kind), "test") as conn,
        pytest.raises(SchemaError, match=f"role '{kind}' does not own schema 'qworker' .* as 'postgres'"),
    ):
        rights.grant(conn, "viewer", [Kind.WORKER])
    assert held(owner, "viewer") == declared(Kind.VIEWER)


def test_a_role_must_exist(owner: psycopg.Connection[Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"role .no \"one\". does not exist .* CREATE ROLE \"no \"\"one\"\"\" LOGIN"
    ):
        rights.grant(owner, 'no "one"', [Kind.VIEWER])


@pytest.mark.parametrize("kind", Kind)
def test_a_role_lacks_nothing_of_its_kind_and_learns_what_it_lacks(granted: Database, kind: Kind) -> None:
    with connect(roles.login(granted.dsn, kind), "test") as conn:
        assert rights.lacking(conn, kind) == []
        missing = {other: rights.lacking(conn, other) for other in Kind}
    has = declared(kind)
    for other, found in missing.items():
        assert len(found) == len({
            (type_, name, privilege, column) for type_, name, privilege, column in declared(other) - PUBLIC
            if (type_, name, privilege, column) not in has and (type_, name, privilege, None) not in has
        })  # fmt: skip


def test_another_schema(postgres_server: EmbeddedPostgres) -> None:
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    try:
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            migrate(conn, "work")
            conn.execute("CREATE ROLE visitor LOGIN")
            rights.grant(conn, "visitor", [Kind.VIEWER], "work")
            assert conn.execute("SELECT has_table_privilege('visitor', 'work.job', 'SELECT')").fetchone() == (True,)
            rights.grant(conn, "visitor", [Kind.VIEWER], "work", revoke=True)
            conn.execute("DROP ROLE visitor")  # nothing depends on it
    finally:
        database.drop(postgres_server)
