"""`manage.py migrate` and `qworker db migrate` over one ledger, in the projects that use them."""

import json
import secrets
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from qworker.contrib.django.api import BaseTaskBackend
from qworker.migrations import check, migrate, shipped
from qworkerd.embedded import EmbeddedPostgres
from tests.contrib.django.settings import database as entry
from tests.database import Database
from tests.project import Project

SETTINGS = """
import json
import os

SECRET_KEY = "tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "qworker.contrib.django", "shop"]
DATABASES = json.loads(os.environ["SHOP_DATABASES"])
QWORKER = json.loads(os.environ.get("SHOP_QWORKER", "{}"))
DATABASE_ROUTERS = json.loads(os.environ.get("SHOP_ROUTERS", "[]"))
MIGRATION_MODULES = json.loads(os.environ.get("SHOP_MODULES", "{}"))
"""
MODELS = """
from django.db import models


class Order(models.Model):
    customer = models.TextField()
"""
ROUTER = """
class Nowhere:
    def allow_migrate(self, db, app_label, **hints):
        return False if app_label == "qworker" else None
"""


@pytest.fixture
def other_database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    yield database
    database.drop(postgres_server)


@pytest.fixture
def project(empty_database: Database, other_database: Database, tmp_path: Path) -> Iterator[Project]:
    """A project with a database for jobs, one without jobs, and SQLite."""
    databases = {
        "default": entry(empty_database.dsn),
        "reports": entry(other_database.dsn),
        "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "lite")},
    }
    with Project(
        tmp_path, empty_database.dsn, DJANGO_SETTINGS_MODULE="settings", SHOP_DATABASES=json.dumps(databases)
    ) as project:
        project.write("settings.py", SETTINGS)
        project.write("router.py", ROUTER)
        project.write("shop/__init__.py", "")
        project.write("shop/models.py", MODELS)
        yield project


@pytest.fixture
def manage(project: Project) -> Callable[..., str]:
    def manage(line: str, **environment: Any) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setitem(project._environment, name, json.dumps(value))
            return project.type(f"python -m django {line}")

    return manage


@pytest.fixture
def conn(empty_database: Database) -> psycopg.Connection[Any]:
    return empty_database.connect()


def schemas(database: Database) -> set[str]:
    rows = database.connect().execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_|^public$'")
    return {name for (name,) in rows}


def django_has(conn: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in conn.execute("SELECT name FROM django_migrations WHERE app = 'qworker' ORDER BY name")]


def test_every_sql_file_has_a_migration_of_django_that_applies_it() -> None:
    folder = files("qworker.contrib.django").joinpath("migrations")
    found = {path.name.removesuffix(".py"): path.read_text() for path in folder.iterdir() if path.name[0].isdigit()}
    wanted = {str(migration) for migration in shipped()}
    assert wanted - found.keys() == set(), "write a migration of Django with this name, that applies the SQL file"
    assert found.keys() - wanted == set()
    for name, text in found.items():
        assert f'ApplyMigration("{name}")' in text


def test_migrate_brings_the_schema_and_qworker_sees_it(
    project: Project, manage: Callable[..., str], conn: psycopg.Connection[Any]
) -> None:
    manage("migrate")
    check(conn)
    assert django_has(conn) == [str(migration) for migration in shipped()]
    assert project.type("qworker db migrate") == project.type("qworker db migrate")
    assert migrate(conn) == []


def test_migrate_takes_over_what_qworker_has_applied(manage: Callable[..., str], conn: psycopg.Connection[Any]) -> None:
    migrate(conn)
    conn.execute("INSERT INTO qworker.job (task) VALUES ('waits')")
    manage("migrate")
    assert django_has(conn) == [str(migration) for migration in shipped()]
    assert conn.execute("SELECT task FROM qworker.job").fetchall() == [("waits",)]


def test_a_migration_that_fails_leaves_nothing_behind(
    manage: Callable[..., str], conn: psycopg.Connection[Any]
) -> None:
    conn.execute("CREATE SCHEMA qworker; CREATE TABLE qworker.unique_key (x int)")
    with pytest.raises(AssertionError, match="already exists"):
        manage("migrate qworker")
    assert conn.execute("SELECT to_regclass('qworker.migration'), to_regclass('qworker.job')").fetchone() == (
        None,
        None,
    )
    assert django_has(conn) == []


@pytest.mark.parametrize("alias", ["reports", "lite"])
def test_another_database_gets_no_schema(
    manage: Callable[..., str], other_database: Database, empty_database: Database, alias: str
) -> None:
    manage(f"migrate --database {alias}")
    assert schemas(other_database) == schemas(empty_database) == set()


def test_the_database_and_the_name_of_the_schema_are_those_of_the_settings(
    manage: Callable[..., str], other_database: Database, empty_database: Database
) -> None:
    settings = {"DATABASE": "reports", "SCHEMA": "shop_jobs"}
    manage("migrate", SHOP_QWORKER=settings)
    manage("migrate --database reports", SHOP_QWORKER=settings)
    assert schemas(empty_database) == set()
    assert schemas(other_database) == {"shop_jobs"}
    check(other_database.connect(), "shop_jobs")


def test_a_schema_that_the_settings_name_later_is_brought_by_the_next_migrate(
    manage: Callable[..., str], empty_database: Database
) -> None:
    manage("migrate")
    printed = manage("migrate", SHOP_QWORKER={"SCHEMA": "second"})
    assert "Applied qworker.0001_initial to the schema 'second'" in printed
    assert "Applied" not in manage("migrate", SHOP_QWORKER={"SCHEMA": "second"})
    check(empty_database.connect(), "second")


def test_a_faked_migration_is_not_applied_by_the_same_run(manage: Callable[..., str], empty_database: Database) -> None:
    manage("migrate --fake qworker")
    assert schemas(empty_database) == set()


def test_a_router_of_the_project_is_asked(manage: Callable[..., str], empty_database: Database) -> None:
    manage("migrate", SHOP_ROUTERS=["router.Nowhere"])
    assert schemas(empty_database) == set()


def test_sqlmigrate_shows_what_an_administrator_can_run(
    manage: Callable[..., str], conn: psycopg.Connection[Any], other_database: Database
) -> None:
    for migration in shipped():
        text = manage(f"sqlmigrate qworker {migration}")
        assert "CANNOT BE WRITTEN AS SQL" not in text
        conn.execute(text)
    check(conn)
    assert migrate(conn) == []
    manage("migrate")


def test_sqlmigrate_for_another_database_shows_nothing(manage: Callable[..., str]) -> None:
    assert "CREATE" not in manage("sqlmigrate qworker 0001 --database reports")


def test_the_migration_is_not_reversed_while_the_schema_exists(
    manage: Callable[..., str], conn: psycopg.Connection[Any]
) -> None:
    manage("migrate")
    conn.execute("INSERT INTO qworker.job (task) VALUES ('waits')")
    with pytest.raises(AssertionError, match="run DROP SCHEMA qworker CASCADE first"):
        manage("migrate qworker zero")
    assert conn.execute("SELECT task FROM qworker.job").fetchall() == [("waits",)]
    assert django_has(conn) != []

    conn.execute("DROP SCHEMA qworker CASCADE")
    manage("migrate qworker zero")
    assert django_has(conn) == []
    manage("migrate")
    check(conn)


def test_the_models_need_no_migration(manage: Callable[..., str]) -> None:
    assert "No changes detected in app 'qworker'" in manage("makemigrations --check --dry-run qworker")


def test_a_role_that_may_not_create_the_schema_is_told_what_to_do(
    project: Project, empty_database: Database, conn: psycopg.Connection[Any]
) -> None:
    name = f"limited_{secrets.token_hex(4)}"
    conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO {name}")
    try:
        databases = json.loads(project._environment["SHOP_DATABASES"])
        databases["default"] |= {"USER": name, "PASSWORD": "x"}
        project._environment["SHOP_DATABASES"] = json.dumps(databases)
        with pytest.raises(AssertionError, match=r"run the output of `manage\.py qworker db sql`"):
            project.type("python -m django migrate")
    finally:
        conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_options_of_a_backend_that_is_not_ours_are_left_alone(
    project: Project, manage: Callable[..., str], empty_database: Database
) -> None:
    package = BaseTaskBackend.__module__.partition(".backends")[0]
    tasks = {
        "default": {
            "BACKEND": f"{package}.backends.dummy.DummyBackend",
            "OPTIONS": {"id_function": "x", "schema": "theirs"},
        }
    }
    project.write("settings.py", f"{SETTINGS}\nTASKS = {tasks!r}\n")
    manage("migrate qworker")
    assert schemas(empty_database) == {"qworker"}


def test_a_backend_derived_from_ours_names_a_schema(
    project: Project, manage: Callable[..., str], empty_database: Database
) -> None:
    project.write(
        "shop/backends.py", "from qworker.contrib.django.backend import Backend\n\n\nclass Own(Backend):\n    pass\n"
    )
    tasks = {"default": {"BACKEND": "shop.backends.Own", "OPTIONS": {"schema": "own"}}}
    project.write("settings.py", f"{SETTINGS}\nTASKS = {tasks!r}\n")
    manage("migrate qworker")
    assert schemas(empty_database) == {"own"}


def test_of_two_schemas_in_a_database_none_is_left_if_one_fails(
    project: Project, manage: Callable[..., str], empty_database: Database, conn: psycopg.Connection[Any]
) -> None:
    backend = {"BACKEND": "qworker.contrib.django.Backend"}
    tasks = {"default": backend, "second": {**backend, "OPTIONS": {"schema": "second"}}}
    project.write("settings.py", f"{SETTINGS}\nTASKS = {tasks!r}\n")
    conn.execute("CREATE SCHEMA second; CREATE TABLE second.unique_key (x int)")
    with pytest.raises(AssertionError, match="already exists"):
        manage("migrate qworker")
    assert schemas(empty_database) == {"second"}
    conn.execute("DROP TABLE second.unique_key")
    manage("migrate qworker")
    check(conn)
    check(conn, "second")
