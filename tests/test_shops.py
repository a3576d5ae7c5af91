"""The shops in examples/ do what their READMEs say, in environments with nothing else in them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.environment import Environment, build_wheel

EXAMPLES = Path(__file__).parent.parent / "examples"
#: Rows of every shop after a day.
CUSTOMERS = [("ada@example.com", True), ("bob@example.com", True)]
ORDERS = [("19.90", "paid", "ch_order-1"), ("5.00", "declined", "")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def follow(wheel: Path, empty_database: Database, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Type the commands of a README in a copy of its folder; return what each printed."""

    def type_all(shop: str) -> dict[str, str]:
        folder = tmp_path / shop
        shutil.copytree(EXAMPLES / shop, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
        url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
        environment = Environment(tmp_path / "venv", folder, wheel, DATABASE_URL=url, QWORKER_TEST_DSN=url)
        printed = re.findall(r"^```sh\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        return {line: environment.type(line) for block in printed for line in block.splitlines()}

    return type_all


def states(database: Database) -> dict[tuple[str, str], int]:
    """Return how many jobs of each task ended how; hooks under the name of their task with a `!`."""
    rows = database.connect().execute(
        "SELECT regexp_replace(task, '.*[.]', '') || CASE WHEN is_hook THEN '!' ELSE '' END, state, count(*)"
        "  FROM qworker.jobs GROUP BY 1, 2"
    )
    return {(task, state): count for task, state, count in rows}


#: What a node with --burst leaves.
DONE = {
    ("welcome", "completed"): 2, ("charge", "completed"): 1, ("charge", "failed"): 1, ("charge!", "completed"): 1,
    ("notify", "completed"): 1, ("newsletter", "completed"): 2, ("thumbnail", "completed"): 1,
    ("nightly_report", "completed"): 1,
}  # fmt: skip


def test_the_shop_on_django_runs_in_an_empty_environment(
    follow: Callable[[str], dict[str, str]], empty_database: Database
) -> None:
    printed = follow("django_shop")
    tested = printed["python manage.py test --buffer"]
    assert re.search(r"Ran 17 tests", tested), tested
    assert "OK" in tested.splitlines(), tested
    assert states(empty_database) == DONE
    assert rows(empty_database, "SELECT email, welcomed_at IS NOT NULL FROM shop_customer ORDER BY id") == CUSTOMERS
    assert rows(empty_database, "SELECT total::text, state, charge FROM shop_order ORDER BY id") == ORDERS
    assert rows(empty_database, "SELECT length(thumbnail) FROM shop_picture") == [(1024,)]
    assert rows(empty_database, "SELECT orders, revenue::int FROM shop_dailyreport") == [(0, 0)]
    assert "newsletter" in printed["python manage.py qworker jobs list"]


def test_the_shop_on_flask_runs_in_an_empty_environment(
    follow: Callable[[str], dict[str, str]], empty_database: Database
) -> None:
    printed = follow("flask_shop")
    assert re.search(r"^17 passed", printed["pytest -q"], re.MULTILINE), printed["pytest -q"]
    assert states(empty_database) == DONE
    assert rows(empty_database, "SELECT email, welcomed_at IS NOT NULL FROM customer ORDER BY id") == CUSTOMERS
    assert rows(empty_database, "SELECT total::text, state, charge FROM orders ORDER BY id") == ORDERS
    assert rows(empty_database, "SELECT length(thumbnail) FROM picture") == [(1024,)]
    assert rows(empty_database, "SELECT orders, revenue::int FROM daily_report") == [(0, 0)]
    assert "newsletter" in printed["flask qworker jobs list"]


def rows(database: Database, query: str) -> list[Any]:
    return database.connect().execute(query).fetchall()
