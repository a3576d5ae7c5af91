"""Importing qworker in a web process stays light."""

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio.runners", "click", "croniter", "django", "flask", "opentelemetry", "psycopg_pool", "pydantic", "pytest",
    "qworkerd", "sentry_sdk", "sqlalchemy", "structlog",
}  # fmt: skip


def loaded_by(program: str) -> set[str]:
    program += "\nimport sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(found.stdout.split())


def test_the_library_and_a_task_load_psycopg_and_nothing_heavy() -> None:
    loaded = loaded_by("import qworker; app = qworker.App('')\n@app.task\ndef send(): ...\nsend.options(delay=5)")
    assert "psycopg" in loaded
    before = loaded_by("import psycopg")
    assert not (loaded - before) & HEAVY


def test_a_schedule_loads_croniter() -> None:
    loaded = loaded_by("import qworker; app = qworker.App('')\n@app.cron('* * * * *')\n@app.task\ndef send(): ...")
    assert "croniter" in loaded
    assert not loaded & {"click", "structlog", "qworkerd"}


@pytest.mark.parametrize("words", [["--help"], ["jobs", "list", "--help"], ["audit", "--help"], ["--version"]])
def test_a_command_that_logs_nothing_does_not_load_what_renders_logs(words: list[str]) -> None:
    program = (
        "import sys; from qworkerd.cli.main import main\n"
        f"sys.argv = ['qworker', *{words!r}]\ntry:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not loaded_by(program) & {"structlog", "rich", "pygments", "flask", "textual"}


@pytest.mark.parametrize(
    "name", ["App", "Retry", "PermanentError", "TransientError", "current_job", "Job", "JobFailed"]
)
def test_what_applications_need_is_at_the_top(name: str) -> None:
    import qworker

    assert name in qworker.__all__
    assert hasattr(qworker, name)
