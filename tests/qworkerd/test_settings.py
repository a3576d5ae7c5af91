"""Where settings come from, and which are refused."""

import dataclasses
import os
from pathlib import Path

import pytest

from qworker.errors import ConfigurationError
from qworkerd.config.settings import NOT_ON_COMMAND_LINE, Settings, WrongOption, field_specs, misspelt, option, variable


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(options: dict[str, object] | None = None, **environ: str) -> tuple[Settings, dict[str, str]]:
    return Settings.load(options or {}, environ)


def refused(options: dict[str, object] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(options, **environ)
    return str(caught.value)


def project(text: str, folder: Path | None = None) -> Path:
    path = (folder or Path.cwd()) / "pyproject.toml"
    path.write_text(text)
    return path


def test_without_anything_every_setting_has_its_default() -> None:
    settings, origins = load()
    assert settings == Settings()
    assert settings.processes == os.cpu_count()
    assert set(origins) == {field.name for field in dataclasses.fields(Settings)}
    assert set(origins.values()) == {"default"}


def test_every_default_is_a_value_that_may_also_be_given() -> None:
    for name, kind in field_specs().items():
        value = getattr(Settings(), name)
        if value is not None:
            assert kind.read(value) == value, name


def test_options_win_over_the_environment_and_this_over_the_project_file() -> None:
    path = project("[tool.qworker]\nprocesses = 2\nmax_batch = 20\nlease_timeout = 20\n")
    settings, origins = load({"processes": "4"}, QWORKER_PROCESSES="3", QWORKER_MAX_BATCH="30")
    assert (settings.processes, settings.max_batch, settings.lease_timeout) == (4, 30, 20.0)
    assert (origins["processes"], origins["max_batch"]) == ("--processes", "$QWORKER_MAX_BATCH")
    assert origins["lease_timeout"] == f"[tool.qworker] in {path}"


def test_variables_of_other_tools_count_below_our_own() -> None:
    common = {"DATABASE_URL": "postgresql://a/b", "MAX_CONCURRENT_JOBS": "5", "JOB_TIMEOUT": "60"}
    settings, origins = load(None, **common)
    assert (settings.dsn, settings.processes, settings.timeout) == ("postgresql://a/b", 5, 60.0)
    assert origins["timeout"] == "$JOB_TIMEOUT"
    settings, origins = load(
        None, **common, QWORKER_DSN="postgresql://c/d", QWORKER_PROCESSES="6", QWORKER_TIMEOUT="none"
    )
    assert (settings.dsn, settings.processes, settings.timeout) == ("postgresql://c/d", 6, None)
    assert origins["dsn"] == "$QWORKER_DSN"


def test_an_empty_variable_is_no_setting() -> None:
    settings, origins = load(None, QWORKER_PROCESSES="", DATABASE_URL="")
    assert settings == Settings()
    assert origins["processes"] == "default"


def test_none_switches_limits_off_in_any_spelling() -> None:
    project('[tool.qworker]\nmax_jobs = "none"\n')
    settings, origins = load({"timeout": "None"}, QWORKER_SLOW_AFTER="NONE")
    assert (settings.timeout, settings.slow_after, settings.max_jobs) == (None, None, None)
    assert origins["max_jobs"].startswith("[tool.qworker]")


def test_a_project_file_may_write_names_with_dashes_lists_and_booleans() -> None:
    project('[tool.qworker]\npoll-interval = 0.5\nqueues = ["a", "b"]\nburst = true\n')
    settings, _ = load()
    assert (settings.poll_interval, settings.queues, settings.burst) == (0.5, ("a", "b"), True)


def test_the_nearest_project_file_that_speaks_of_us_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = project('[tool.qworker]\napp = "shop.jobs:app"\n')
    inner = Path("service/deep")
    inner.mkdir(parents=True)
    project("[tool.ruff]\n", inner)
    monkeypatch.chdir(inner)
    settings, origins = load()
    assert settings.app == "shop.jobs:app"
    assert origins["app"] == f"[tool.qworker] in {outer}"


def test_a_project_file_that_is_no_toml_is_named() -> None:
    path = project("[tool.qworker\n")
    assert str(path) in refused()


def test_an_unknown_name_in_the_project_file_is_refused_with_a_guess() -> None:
    path = project("[tool.qworker]\nproceses = 8\n")
    assert refused() == f"'proceses' in [tool.qworker] in {path} is not a setting; did you mean processes?"


def test_all_bad_values_are_reported_at_once_with_origin_and_what_is_allowed() -> None:
    message = refused({"processes": "0", "timeout": "soon"}, QWORKER_LEASE_TIMEOUT="1", QWORKER_LOG_LEVEL="loud")
    assert message.splitlines() == [
        "processes = '0' from --processes: must be a whole number from 1 to 1024",
        "timeout = 'soon' from --timeout: must be a duration from 1ms to 366d: seconds, or 5m, 1h30m, 250ms, or 'none'",
        (
            "lease_timeout = '1' from $QWORKER_LEASE_TIMEOUT: must be a duration from 5s to 1h: seconds, or 5m, 1h30m, "
            "250ms"
        ),
        "log_level = 'loud' from $QWORKER_LOG_LEVEL: must be one of debug, info, warning, error",
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "0x10", "", " ", "1,5"])
def test_what_is_no_duration_is_refused(value: str) -> None:
    assert "timeout = " in refused({"timeout": value})


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("90", 90), ("1.5h", 5400), (" 2D ", 172_800), ("1m30.5s", 90.5)],
)
def test_durations_may_have_units_wherever_they_are_set(written: str, seconds: float) -> None:
    assert load({"timeout": written})[0].timeout == seconds
    assert load(None, QWORKER_TIMEOUT=written)[0].timeout == load(None, JOB_TIMEOUT=written)[0].timeout == seconds
    project(f'[tool.qworker]\ntimeout = "{written}"\n')
    assert load()[0].timeout == seconds


@pytest.mark.parametrize("written", ["5 m", "m", "5x", "30m1h", "5m5m", "1h-30m", "5mm", "\u0661m"])
def test_what_is_no_duration_with_units_is_refused(written: str) -> None:
    assert "5m, 1h30m, 250ms" in refused({"timeout": written})


def test_a_wrong_option_is_a_matter_of_usage_and_a_wrong_variable_of_configuration() -> None:
    for options, environ in (({"lease_timeout": "1"}, {}), ({"lease_timeout": "1"}, {"QWORKER_TIMEOUT": "soon"})):
        with pytest.raises(WrongOption):
            Settings.load(options, environ)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({"lease_timeout": "30"}, {"QWORKER_TIMEOUT": "soon"})
    assert not isinstance(caught.value, WrongOption)


def test_variables_that_look_like_a_setting_are_found() -> None:
    environ = {
        "QWORKER_DNS": "x",
        "QWORKER_PROCESES": "2",
        "QWORKER_LEASE_TIMEOUT": "30",
        "QWORKER_FAVOURITE_COLOUR": "x",
        "QWORKER_TEST_DSN": "x",
    }
    assert misspelt(environ) == {"QWORKER_DNS": "QWORKER_DSN", "QWORKER_PROCESES": "QWORKER_PROCESSES"}


@pytest.mark.parametrize("value", ["none", "1.5", "-1", "99999999999999999999", "0", "eight"])
def test_what_is_no_count_is_refused(value: str) -> None:
    assert "processes = " in refused({"processes": value})


@pytest.mark.parametrize("value", [",", "a,,b", "", "a\nb", "x" * 201])
def test_what_is_no_queue_is_refused(value: str) -> None:
    assert "queues = " in refused({"queues": value})


def test_booleans_of_toml_are_no_numbers() -> None:
    project("[tool.qworker]\nprocesses = true\ntimeout = true\n")
    assert len(refused().splitlines()) == 2


def test_queues_are_trimmed_and_counted_once() -> None:
    settings, _ = load({"queues": " critical, default ,critical"})
    assert settings.queues == ("critical", "default")


def test_the_dsn_shows_neither_in_errors_nor_in_a_repr() -> None:
    settings, _ = load(None, QWORKER_DSN="postgresql://u:hunter2@h/db")
    assert settings.dsn == "postgresql://u:hunter2@h/db"
    assert "hunter2" not in repr(settings)
    project("[tool.qworker]\ndsn = ['postgresql://u:hunter2@h/db']\n")
    assert "hunter2" not in refused()


def test_the_dsn_is_no_option_because_everybody_can_read_command_lines() -> None:
    assert {"dsn", "direct_dsn"} == NOT_ON_COMMAND_LINE


def test_names_have_one_spelling_each_for_command_line_and_environment() -> None:
    assert option("max_jobs_per_worker") == "--max-jobs-per-worker"
    assert variable("max_jobs_per_worker") == "QWORKER_MAX_JOBS_PER_WORKER"


@pytest.mark.parametrize(("drain", "interrupt", "needed"), [(25.0, 5.0, 45), (0.0, 0.0, 15), (600.0, 30.5, 645)])
def test_the_stop_timeout_covers_every_phase_of_a_shutdown(drain: float, interrupt: float, needed: int) -> None:
    settings = Settings(shutdown_timeout=drain, interrupt_timeout=interrupt)
    assert settings.stop_timeout == needed
    assert settings.stop_timeout >= drain + interrupt + 2 + 10


def test_history_is_kept_for_no_longer_than_its_ring_can_be_emptied() -> None:
    """The day to be emptied may be neither today nor tomorrow: with 30 days of 32 none would ever be."""
    assert load({"history_days": 29})[0].history_days == 29
    assert "history_days" in refused({"history_days": 30})
