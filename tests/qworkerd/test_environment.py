"""What libpq reads from the process stays as it was at the start, for qworker's connections."""

import os
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from qworkerd.process.environment import Environment
from tests.database import Database

VARIABLES = sorted(option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar)
#: Overridden by what the session says for itself, or without influence on where it leads.
APART = {
    "PGSERVICE",
    "PGAPPNAME",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION",
}


@pytest.mark.parametrize("variable", [name for name in VARIABLES if name not in APART])
def test_no_variable_changes_a_connection(database: Database, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    environment = Environment()
    monkeypatch.setenv(variable, "nonsense")
    with psycopg.connect(environment.pin(database.dsn)) as conn:
        assert conn.info.dbname == conninfo_to_dict(database.dsn)["dbname"]


def test_a_variable_of_the_start_counts_after_it_was_changed_or_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "first")
    environment = Environment()
    assert environment.pin("dbname=shop") == "dbname=shop"
    monkeypatch.setenv("PGHOST", "second")
    assert conninfo_to_dict(environment.pin("dbname=shop"))["host"] == "first"
    assert conninfo_to_dict(environment.pin("host=own"))["host"] == "own"
    monkeypatch.delenv("PGHOST")
    assert conninfo_to_dict(environment.pin(""))["host"] == "first"


def test_the_name_of_the_database_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment()
    monkeypatch.setenv("PGDATABASE", "elsewhere")
    assert conninfo_to_dict(environment.pin("user=shop"))["dbname"] == "shop"


@pytest.mark.parametrize("variable", ["QWORKER_DSN", "DATABASE_URL"])
def test_the_dsn_of_the_start_counts(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "host=first")
    environment = Environment()
    monkeypatch.setenv(variable, "host=second")
    assert environment.pin("") == "host=first"


def test_files_are_found_from_where_the_node_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/first")
    monkeypatch.setenv("PGSSLCRL", "revoked.crl")
    environment = Environment()
    dsn = "sslrootcert=certs/root.crt sslkey=pkcs11:key sslcert=/etc/own.crt"
    assert environment.pin(dsn) == dsn
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/second")
    found = conninfo_to_dict(environment.pin(dsn))
    assert found == {
        "sslrootcert": str(tmp_path / "certs/root.crt"), "sslkey": "pkcs11:key", "sslcert": "/etc/own.crt",
        "sslcrl": str(tmp_path / "revoked.crl"), "passfile": "/home/first/.pgpass",
    }  # fmt: skip
    assert conninfo_to_dict(environment.pin("sslrootcert=system"))["sslrootcert"] == "system"


def test_a_service_keeps_its_meaning(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = conninfo_to_dict(database.dsn)
    (tmp_path / ".pg_service.conf").write_text(
        "[shop]\n" + "".join(f"{name}={value}\n" for name, value in parts.items()) + "[other]\nhost=192.0.2.1\n"
    )
    monkeypatch.delenv("PGSERVICEFILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSERVICE", "shop")
    environment = Environment()
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("PGSERVICE", "other")
    with psycopg.connect(environment.pin("")) as conn:
        assert conn.info.dbname == parts["dbname"]
    assert environment.restore() == ["PGSERVICE"]
    assert os.environ["PGSERVICE"] == "shop"
    assert environment.restore() == []
    with psycopg.connect(environment.pin("service=shop")) as conn:
        assert conn.info.dbname == parts["dbname"]
    monkeypatch.delenv("PGSERVICEFILE")


def test_a_dsn_that_cannot_be_read_is_left_to_whoever_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment()
    monkeypatch.setenv("PGHOST", "second")
    assert environment.pin("postgresql://a b") == "postgresql://a b"
