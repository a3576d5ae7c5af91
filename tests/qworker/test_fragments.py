"""The end of a job stands once in the SQL: a new column means migration, fragment, view and `Job`."""

import re
from dataclasses import fields
from importlib.resources import files

import pytest

from qworker.claims import ClaimedJob
from qworker.db.statements import load
from qworker.job import Job
from tests.database import Database

QUERIES = files("qworker").joinpath("sql", "queries")
AREAS = sorted(entry.name.removesuffix(".sql") for entry in QUERIES.iterdir() if entry.name.endswith(".sql"))


def occurrences(pattern: str) -> dict[str, int]:
    """Return how often a pattern occurs in each file of statements, without those where it does not."""
    counts = {area: len(re.findall(pattern, QUERIES.joinpath(f"{area}.sql").read_text())) for area in AREAS}
    return {area: count for area, count in counts.items() if count}


@pytest.mark.parametrize(
    "pattern",
    [
        r"INSERT INTO \{schema\}\.job_history",
        r"history_day\(now\.at\)",
        r"d\.node_losses",
        r"k\.job_id = ANY \(ARRAY \(\{argument",
        r"token = NULL",
        r"id = %\(id\)s(?:::bigint)? AND l\.token",
        r"EXISTS \(SELECT FROM locked WHERE cancelled\)",
        r"= ANY \([\w{}]+\.tags\)",
        r"claimed_at = NULL(?!, cancel)",
        r"jsonb_build_object\('hook'",
        r"jsonb_build_object\('job'",
        r"r\.seq > w\.cursor",
        r"INSERT INTO \{schema\}\.unique_key",
        r"UPDATE \{schema\}\.unique_key",
        r"THEN \(SELECT j\.holds_key FROM \{schema\}\.job AS j WHERE j\.id = k\.job_id\)",
        r"make_interval\(secs => %\(expires\)s",
        r"j\.overrides::text, j\.unknown_task_count",
        r"j\.progress::text",
    ],
)
def test_a_part_of_a_jobs_end_stands_once(pattern: str) -> None:
    assert occurrences(pattern) == {"fragments": 1}


def test_every_fragment_is_used_and_inserted() -> None:
    names = set(load("fragments"))
    used = {name for area in AREAS for name in re.findall(r"\{(\w+)[:}]", QUERIES.joinpath(f"{area}.sql").read_text())}
    assert names <= used
    for area in set(AREAS) - {"fragments"}:
        for name, statement in load(area).items():
            assert not re.findall(r"\{(?:argument|schema|" + "|".join(names) + r")\b", statement), (area, name)


def test_the_columns_that_are_read_are_the_fields_by_name_and_of_a_claim_in_order(database: Database) -> None:
    with database.connect() as conn:
        shown = conn.execute(load("admin")["show"], {"id": 0}).description or []
        claimed = conn.execute(load("claims")["read"], {"id": 0, "token": 0}).description or []
    assert {column.name for column in shown} | {"duplicate", "_actions", "_conn"} == {each.name for each in fields(Job)}
    assert tuple(column.name for column in claimed) == ClaimedJob._fields


def columns(database: Database, relation: str) -> set[str]:
    """Return the columns of a table or a view."""
    with database.connect() as conn:
        return {column.name for column in conn.execute(f"TABLE qworker.{relation} LIMIT 0".encode()).description or ()}


def test_a_column_of_a_finished_job_is_archived_shown_and_a_field(database: Database) -> None:
    """A column that one of these places lacks would be lost, or kept and shown to nobody."""
    inserted = re.search(r"INSERT INTO qworker\.job_history \((.*?)\)", load("fragments")["archive"], re.DOTALL)
    assert inserted is not None
    history, shown = columns(database, "job_history"), columns(database, "jobs")
    assert set(re.split(r",\s+", inserted[1].strip())) == history
    assert history - shown == {"token", "ring_day"}, "a fence and a partition, of which no user has to know"
    names = {"is_hook": "hook"}
    assert {names.get(name, name) for name in shown - {"archived", "fingerprint"}} <= {
        each.name for each in fields(Job)
    }
