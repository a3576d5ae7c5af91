"""What people copy runs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.database import Database
from tests.project import Project

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))


@pytest.fixture
def example(empty_database: Database, tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    """Copy an example, as people do, and open it as a project."""
    projects: list[Project] = []

    def copy(name: str) -> Project:
        source = EXAMPLES / name
        if source.is_dir():
            shutil.copytree(source, tmp_path, dirs_exist_ok=True)
        else:
            shutil.copy(source, tmp_path)
        projects.append(Project(tmp_path, empty_database.dsn, DJANGO_SETTINGS_MODULE="shop.settings"))
        return projects[-1]

    yield copy
    for project in projects:
        project.close()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_program_is_python_and_says_how_to_start_it(program: Path) -> None:
    text = program.read_text()
    compile(text, program, "exec")
    assert text.startswith('"""')


def test_the_script_signs_people_up_with_a_job_or_not_at_all(example: Callable[[str], Project]) -> None:
    project = example("script.py")
    project.type("qworker db migrate")
    project.type("qworker --app script:app --processes 2")
    assert project.type("python script.py Ada bob Cleo").splitlines() == [
        "welcome, Ada",
        "'bob' is not a name: the row is rolled back, and the job with it",
        "welcome, Cleo",
    ]
    assert project.say("import script; print(len(script.app.admin.find()))") == "2\n"


def test_the_shop_ships_what_is_paid(example: Callable[[str], Project]) -> None:
    project = example("django_orders")
    project.type("python manage.py migrate")
    project.type("python manage.py test")
    project.type("python manage.py qworker run --processes 2")
    project.say("import django, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'; django.setup()")
    project.say("from shop.jobs import app; from shop.checkout import buy; from shop.models import Order")
    assert project.say("print(buy('Ada').wait(timeout=30))") == "order 1 of Ada is on its way\n"
    assert "is not paid" in project.say("buy('Bob', paid=False)")
    assert project.say("print(*Order.objects.all(), len(app.admin.find()))") == "order 1 of Ada 1\n"
    assert project.say("print(Order.objects.get().sent_at is not None)") == "True\n"


def test_the_index_counts_what_is_in_a_file_once_however_often_it_runs(example: Callable[[str], Project]) -> None:
    project = example("stdlib_index")
    project.type("qworker db migrate")
    project.say(
        "import os, psycopg, jobs\n"
        "conn = psycopg.connect(os.environ['QWORKER_DSN'], autocommit=True)\n"
        "jobs.prepare(conn)\n"
        "names = ('ast.py', 'ast.py', 'json/decoder.py')\n"
        "jobs.index.enqueue_many((name,) for name in names)\n"
    )
    project.type("qworker --app jobs:app --queues files --burst")
    assert project.say("print(jobs.totals(conn).files, jobs.totals(conn).problems)") == "2 0\n"
    project.say("row = conn.execute(\"SELECT * FROM stdlib_file WHERE path = 'json/decoder.py'\").fetchone()")
    assert project.say("print(row[2], row[1] > 5, row[3] == len(open(jobs.LIBRARY / row[0]).readlines()))") == (
        "2 True True\n"
    )


def test_the_librarys_files_are_found_without_what_is_installed_beside_them() -> None:
    from qworkerd.demo import jobs

    found = jobs.files()
    assert len(found) >= 500
    assert len(set(found)) == len(found)
    assert {"ast.py", "json/decoder.py"} <= set(found)
    assert not [name for name in found if "site-packages" in name]
