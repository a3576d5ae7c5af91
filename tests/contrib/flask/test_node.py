"""A node of a Flask application: contexts and sessions of jobs, and how it finds the application."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.project import Project

SHOP = """
import os

from flask import Flask, current_app, g
from flask_sqlalchemy import SQLAlchemy
from qworker.contrib.flask import Qworker

db = SQLAlchemy()
queue = Qworker(session=lambda: db.session)


class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(200))


def write(kind):
    db.session.add(Note(text=f"{kind} in {current_app.name}, first: {g.setdefault('seen', 0) == 0}"))
    g.seen += 1
    db.session.commit()


@queue.task(retry=False)
def work(fails):
    write("work")
    if fails:
        db.session.add(Note(id=1, text="a key that exists"))
        db.session.flush()  # fails, and leaves the session unusable


@queue.task
def follow():
    db.session.add(Note(text="follow"))
    db.session.flush()
    work.enqueue(False)
    db.session.rollback()


@work.on_failure
def failed(job, error):
    write(f"hook for {error.type}")


@queue.on_error
def report(job, error):
    write("on_error")


@queue.on_worker_start
def start():
    write("start")


def create_app():
    web = Flask("shop")
    web.config["SQLALCHEMY_DATABASE_URI"] = os.environ["SHOP_URL"]
    db.init_app(web)
    queue.init_app(web)
    with web.app_context():
        db.create_all()
    return web
"""


@pytest.fixture
def project(database: Database, tmp_path: Path) -> Iterator[Project]:
    at = "postgresql+psycopg2://{user}:{password}@{host}:{port}/{dbname}?application_name=shop"
    shop_url = at.format(**conninfo_to_dict(database.dsn))
    # No QWORKER_DSN: the connection string is that of SQLAlchemy.
    with Project(tmp_path, "", SHOP_URL=shop_url, FLASK_APP="shop") as project:
        project.write("shop.py", SHOP)
        yield project
    with database.connect() as conn:
        conn.execute("DROP TABLE IF EXISTS note")


def test_each_attempt_and_each_hook_has_a_context_and_a_session(project: Project, database: Database) -> None:
    for job in ("work [true]", "work [false]", "follow"):
        project.type(f"flask --app shop qworker enqueue shop.{job}")
    project.type("flask --app shop qworker run --burst --processes 1")
    with database.connect() as conn:
        notes = [text for (text,) in conn.execute("SELECT text FROM note ORDER BY id")]
        states = conn.execute("SELECT task, state, is_hook FROM qworker.jobs ORDER BY id").fetchall()
    assert states == [
        ("shop.work", "failed", False),
        ("shop.work", "completed", False),
        ("shop.follow", "completed", False),
        ("shop.work", "completed", True),
    ]
    assert notes[0] == "start in shop, first: True"
    assert sorted(notes[1:]) == [
        "hook for sqlalchemy.exc.IntegrityError in shop, first: True",
        "on_error in shop, first: True",
        "work in shop, first: True",
        "work in shop, first: True",
    ]


def test_other_commands_find_the_application_too(project: Project) -> None:
    assert json.loads(project.type("qworker jobs list --app shop:queue --json")) == []
    assert "shop.follow" in project.type("qworker check --app qworker.contrib.flask.node:app")


def test_an_application_without_the_extension_is_refused(project: Project, tmp_path: Path) -> None:
    project.write("shop.py", "from flask import Flask\nweb = Flask('bare')")
    with pytest.raises(AssertionError, match=r"exit code 78(.|\n)*'bare' has no Qworker: call init_app"):
        project.type("flask --app shop qworker check")


def test_no_application_is_said(project: Project, tmp_path: Path) -> None:
    (tmp_path / "shop.py").unlink()
    with pytest.raises(AssertionError, match=r"exit code 78\s+qworker: .*no Flask application: .*'shop'"):
        project.type("flask qworker jobs list")
