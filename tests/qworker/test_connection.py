"""The framework's connections: how they are named, and how long they wait for an answer."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker.db.connection import connect, conninfo
from tests.database import Database
from tests.lifecycle.proxy import Proxy

TAG = "#" + "h" * 24 + ".1234567.123456789"


@pytest.mark.parametrize(
    ("dsn", "begins"), [("", "qworker "), ("application_name=shop", "shop "), (f"application_name={'s' * 63}", "ss")]
)
def test_a_session_is_named_by_its_role_whatever_the_dsn_says(dsn: str, begins: str) -> None:
    name = str(conninfo_to_dict(conninfo(dsn, f"worker 12 {TAG}"))["application_name"])
    assert name.startswith(begins)
    assert name.endswith(f" worker 12 {TAG}")
    assert len(name) <= 63


def test_a_connection_without_an_answer_is_closed(database: Database) -> None:
    with Proxy(database.dsn) as proxy, connect(proxy.dsn, "test", statement_timeout=1) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(9)")  # a server that lives says so in time
        proxy.forget()
        with pytest.raises(psycopg.OperationalError, match=r"no answer for 1\.5 s: it is unknown whether"):
            connection.execute("SELECT 1")
        assert connection.closed


def test_without_a_statement_timeout_an_answer_may_take_for_ever(database: Database) -> None:
    with connect(database.dsn, "test", statement_timeout=0) as connection:
        assert connection.execute("SELECT 1 FROM pg_sleep(0.5)").fetchone() == (1,)


#: What a role or a database may have set, by what our sessions have instead.
ODD = {
    "search_path": "public, pg_catalog",
    "extra_float_digits": "-10",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
}


def test_what_is_set_for_the_role_changes_no_result(database: Database) -> None:
    odd = " ".join(f"-c {name}={value.replace(' ', '')}" for name, value in ODD.items())
    ask = (
        "SELECT 1757851200.123456::float8::text, (timestamptz '2026-01-02 03:04:05+00')::text, 'a\\b', '{NULL}'::text[]"
    )
    with connect(make_conninfo(database.dsn, options=odd), "test") as connection:
        for name, value in ODD.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() != (value,), name
        row = connection.execute(ask.encode()).fetchone()
    assert row == ("1757851200.123456", "2026-01-02 03:04:05+00", "a\\b", [None])
