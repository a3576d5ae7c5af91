"""Bringing the schema into a database."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from qworker import ConfigurationError, SchemaError, migrations
from qworker.migrations import Migration, check, migrate, script, shipped, status
from tests.database import Database
from tests.waiting import until

Connection = psycopg.Connection[Any]

#: Everything of a schema that a migration can make, as text that does not depend on the schema's name.
CATALOG = {
    "relations": """
        SELECT c.relname, c.relkind, c.reloptions, c.relispartition, pg_get_expr(c.relpartbound, c.oid),
               pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class'), c.relpersistence, c.relrowsecurity
          FROM pg_class AS c WHERE c.relnamespace = %(schema)s::regnamespace ORDER BY 1""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), a.attoptions
          FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
          LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = %(schema)s::regnamespace ORDER BY 1, 2""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(c.oid), i.indisvalid
          FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid
         WHERE c.relnamespace = %(schema)s::regnamespace ORDER BY 1""",
    "constraints": """
        SELECT r.relname, c.conname, pg_get_constraintdef(c.oid)
          FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
         WHERE c.connamespace = %(schema)s::regnamespace ORDER BY 1, 2""",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = %(schema)s ORDER BY 1",
    "sequences": """
        SELECT s.sequencename, s.data_type::text, s.start_value, s.increment_by, s.cycle, s.cache_size
          FROM pg_sequences AS s WHERE s.schemaname = %(schema)s ORDER BY 1""",
    "functions": """
        SELECT p.proname, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
          FROM pg_proc AS p WHERE p.pronamespace = %(schema)s::regnamespace ORDER BY 1, 2""",
    "types": """
        SELECT t.typname, t.typtype, (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder)::text
                                        FROM pg_enum AS e WHERE e.enumtypid = t.oid)
          FROM pg_type AS t WHERE t.typnamespace = %(schema)s::regnamespace ORDER BY 1""",
    "triggers": """
        SELECT c.relname, pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE c.relnamespace = %(schema)s::regnamespace AND NOT t.tgisinternal ORDER BY 1, 2""",
    "migrations": "SELECT number, name, needs_code FROM {}.migration ORDER BY 1",
}


def catalog(conn: Connection, schema: str) -> dict[str, list[str]]:
    """Describe a schema, its own name left out."""
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        found = {
            kind: conn.execute(sql.SQL(text).format(sql.Identifier(schema)), {"schema": schema}).fetchall()
            for kind, text in CATALOG.items()
        }
    return {kind: [repr(row).replace(schema, "SCHEMA") for row in rows] for kind, rows in found.items()}


@pytest.fixture
def conn(empty_database: Database) -> Connection:
    return empty_database.connect()


@pytest.fixture
def two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The shipped migrations, and a second one that was written for the test."""
    folder = tmp_path / "sql"
    folder.mkdir()
    for file in (Path(migrations.__file__).parent / "sql").glob("*.sql"):
        (folder / file.name).write_text(file.read_text())
    last = shipped()[-1].number
    (folder / f"{last + 1:04d}_second.sql").write_text(
        f"-- needs code: {last}\n\nALTER TABLE {{schema}}.job ADD COLUMN note text;\n"
        "CREATE INDEX note ON {schema}.job (note);\n"
    )
    monkeypatch.setattr("qworker.migrations.files", lambda _package: tmp_path)
    shipped.cache_clear()
    yield folder
    shipped.cache_clear()


def test_a_fresh_database_gets_everything_once(conn: Connection) -> None:
    names = [str(migration) for migration in shipped()]
    assert migrate(conn) == names
    assert migrate(conn) == []
    assert [(str(m), m.applied_at is not None, m.shipped) for m in status(conn)] == [(n, True, True) for n in names]
    check(conn)


@pytest.mark.parametrize("autocommit", [False, True])
def test_it_commits_on_a_connection_of_either_kind(empty_database: Database, autocommit: bool) -> None:
    with psycopg.connect(empty_database.dsn, autocommit=autocommit) as conn:
        migrate(conn)
        conn.rollback()
    check(empty_database.connect())


def test_migrated_step_by_step_equals_a_script_run_by_hand(
    conn: Connection, empty_database: Database, two_steps: Path
) -> None:
    (second,) = two_steps.glob("*_second.sql")
    text = second.read_text()
    second.unlink()
    shipped.cache_clear()
    migrate(conn, "stepwise")
    second.write_text(text)
    shipped.cache_clear()
    assert migrate(conn, "stepwise") == [second.stem]
    conn.execute(script("by_hand"))
    conn.execute(sql.SQL("CREATE SCHEMA empty_one"))
    migrate(conn, "empty_one")
    migrate(conn, "at_once")
    stepwise = catalog(conn, "stepwise")
    assert all(stepwise[kind] for kind in CATALOG if kind != "triggers")
    for schema in ("by_hand", "at_once", "empty_one"):
        assert catalog(conn, schema) == stepwise
        assert migrate(conn, schema) == []
        check(conn, schema)


def test_a_script_can_begin_in_the_middle(conn: Connection, two_steps: Path) -> None:
    migrate(conn, "all_of_it")
    (second,) = two_steps.glob("*_second.sql")
    second.rename(two_steps.parent / "hidden")
    shipped.cache_clear()
    migrate(conn, "half_of_it")
    (two_steps.parent / "hidden").rename(second)
    shipped.cache_clear()
    with pytest.raises(
        SchemaError, match=rf"is older than this code and lacks {second.stem}: run .*--schema half_of_it"
    ):
        check(conn, "half_of_it")
    conn.execute(script("half_of_it", after=shipped()[-2].number))
    assert catalog(conn, "half_of_it") == catalog(conn, "all_of_it")
    check(conn, "half_of_it")


def test_the_script_runs_in_one_transaction_and_only_once(conn: Connection) -> None:
    conn.execute(script())
    with pytest.raises(psycopg.errors.DuplicateObject):
        conn.execute(script())
    conn.execute("ROLLBACK")
    check(conn)


def test_two_at_once_do_it_once(conn: Connection, empty_database: Database) -> None:
    start = threading.Barrier(4)

    def run() -> list[str]:
        with psycopg.connect(empty_database.dsn) as own:
            start.wait()
            return migrate(own)

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(run) for _ in range(4)]
        done = [found.result() for found in runs]
    assert sorted(name for names in done for name in names) == [str(m) for m in shipped()]
    assert all(names == sorted(names) for names in done)  # each migration is a transaction: they may take turns
    check(conn)


def test_the_second_waits_for_the_first_before_it_looks(conn: Connection, empty_database: Database) -> None:
    first = empty_database.connect(autocommit=False)
    migrate(first)  # inside of a transaction that is open already, it stays open
    assert first.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with first.transaction():
        first.execute("SELECT pg_advisory_xact_lock(%s, %s)", migrations.lock_key("other"))
        found: list[list[str]] = []
        thread = threading.Thread(target=lambda: found.append(migrate(conn, "other")))
        thread.start()
        look = empty_database.connect()
        until(lambda: look.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone())
        assert look.execute("SELECT to_regnamespace('other')").fetchone() == (None,)
    thread.join()
    assert found == [[str(m) for m in shipped()]]


def test_a_migration_that_fails_leaves_nothing_of_itself(conn: Connection, two_steps: Path) -> None:
    (second,) = two_steps.glob("*_second.sql")
    second.write_text(second.read_text() + "SELECT 1 / 0;\n")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(conn)
    assert [str(m) for m in status(conn) if m.applied_at is None] == [second.stem]
    assert conn.execute("SELECT count(*) FROM pg_class WHERE relname = 'note'").fetchone() == (0,)


# --- checking


def test_a_missing_schema_is_refused_with_the_command(conn: Connection) -> None:
    with pytest.raises(
        SchemaError, match=r"schema 'qworker' in database '\w+' does not exist: run `qworker db migrate`$"
    ):
        check(conn)
    with pytest.raises(SchemaError, match="`qworker db migrate --schema jobs`"):
        check(conn, "jobs")
    assert all(m.applied_at is None for m in status(conn))


def test_a_newer_schema_is_fine_while_it_admits_this_code(conn: Connection) -> None:
    migrate(conn)
    code = shipped()[-1].number
    note = "INSERT INTO qworker.migration (number, name, needs_code) VALUES (%s, %s, %s)"
    conn.execute(note, [code + 1, "additive", code])
    check(conn)
    assert status(conn)[-1].shipped is False
    conn.execute(note, [code + 2, "breaking", code + 2])
    with pytest.raises(
        SchemaError, match=rf"too new for this code \(level {code}\) since {code + 2:04d}_breaking: update"
    ):
        check(conn)


def test_a_bad_schema_name_is_refused_before_it_gets_into_sql(conn: Connection) -> None:
    for name in ("Jobs", "a b", "x; DROP SCHEMA public", "", "1a", "x" * 49):
        for use in (migrate, check, status):
            with pytest.raises(ConfigurationError, match="invalid schema name"):
                use(conn, name)
        with pytest.raises(ConfigurationError, match="invalid schema name"):
            script(name)


def test_a_schema_that_is_a_word_of_sql_is_refused(conn: Connection) -> None:
    for name in ("select", "user", "order"):
        with pytest.raises(ConfigurationError, match=f"invalid schema name '{name}': it is a reserved word"):
            migrate(conn, name)


def test_what_is_shipped_is_numbered_without_gaps() -> None:
    assert [m.number for m in shipped()] == list(range(1, len(shipped()) + 1))
    assert all(m.needs_code <= m.number for m in shipped())
    assert str(Migration(7, "seventh", 6)) == "0007_seventh"


def test_the_bookkeeping_table_is_written_alike_for_people_and_for_the_migrator() -> None:
    text = (Path(migrations.__file__).parent / "sql" / "queries" / "migrations.sql").read_text()
    bodies = re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?\{schema\}\.migration \((.*?)\n\)", text, re.DOTALL)
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


# --- rights


@pytest.fixture
def role(conn: Connection, empty_database: Database) -> Iterator[str]:
    """A role that may log in and nothing else; its name is its password."""
    name = f"role_{conn.info.dbname}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(name)))
    yield name
    empty_database.close()
    with psycopg.connect(empty_database.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(sql.Identifier(admin.info.dbname)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def log_in(database: Database, role: str) -> Connection:
    return psycopg.connect(make_conninfo(database.dsn, user=role, password=role), autocommit=True)


@pytest.mark.parametrize(
    "grant",
    [
        "ALTER DATABASE {database} OWNER TO {role}",
        "GRANT CREATE ON DATABASE {database} TO {role}",
        "CREATE SCHEMA qworker AUTHORIZATION {role}",
        "CREATE SCHEMA qworker; GRANT USAGE, CREATE ON SCHEMA qworker TO {role}",
    ],
)
def test_no_superuser_is_needed(conn: Connection, empty_database: Database, role: str, grant: str) -> None:
    names = {"database": sql.Identifier(conn.info.dbname), "role": sql.Identifier(role)}
    conn.execute(sql.SQL(grant).format(**names))
    with log_in(empty_database, role) as own:
        migrate(own)
        check(own)


def test_missing_rights_are_named_with_what_can_be_done(conn: Connection, empty_database: Database, role: str) -> None:
    with log_in(empty_database, role) as own:
        with pytest.raises(
            SchemaError, match=rf"role '{role}' may not create schema 'qworker'.*GRANT CREATE.*`qworker db sql`"
        ):
            migrate(own)
        migrate(conn)
        for use in (check, status):
            with pytest.raises(SchemaError, match=rf"role '{role}' may not use schema 'qworker'"):
                use(own)
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA qworker TO {}").format(sql.Identifier(role)))
        with pytest.raises(SchemaError, match="permission denied for table migration"):
            check(own)
