"""Log lines: whole, complete, without secrets, and never at the caller's cost."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from select import PIPE_BUF
from typing import Any
from urllib.parse import quote

import pytest

#: Runs in a process of its own: logging is configured for a whole process.
PRELUDE = """
import contextlib, json, logging, os, sys, threading, time, warnings
import structlog
from qworker import context
from qworkerd import log
from qworkerd.log.redaction import register_secret

def running(**facts):
    class Job:
        id, task, queue, attempt, started = 7, "shop.send", "emails", 2, time.monotonic() - 1.5
    return context.running.set(Job())

"""


def run(body: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + body],
        env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def events(body: str) -> list[dict[str, Any]]:
    done = run("log.configure('json', 'info')\n" + body)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return [json.loads(line, parse_constant=pytest.fail) for line in done.stderr.splitlines()]


def event(body: str) -> dict[str, Any]:
    (only,) = events(body)
    return only


def test_a_line_begins_with_time_level_and_event_and_ends_with_the_process() -> None:
    found = event("log.bind_process(role='worker', worker=3)\nlog.get().info('worker.started', slot=5)")
    assert list(found) == ["timestamp", "level", "event", "slot", "role", "worker", "pid"]
    assert found["timestamp"].endswith("Z")
    assert (found["level"], found["event"], found["slot"], found["worker"]) == ("info", "worker.started", 5, 3)


def test_what_the_process_bound_can_be_taken_off_again() -> None:
    assert "worker" not in event("log.bind_process(worker=3)\nlog.bind_process(worker=None)\nlog.get().info('x')")


def test_events_below_the_level_are_not_written() -> None:
    found = events("log.get().debug('a')\nlogging.getLogger('x').debug('b')\nlog.get().info('c')\nlogging.info('d')")
    assert [e["event"] for e in found] == ["c", "d"]


JOB = {"job": 7, "task": "shop.send", "attempt": 2, "queue": "emails"}


def test_lines_of_a_handler_carry_its_job_however_they_are_logged() -> None:
    found = events(
        "running()\n"
        "log.get().info('hello')\n"
        "structlog.get_logger('shop').info('hello')\n"
        "logging.getLogger('shop').info('%s', 'hello')\n"
        "structlog.stdlib.get_logger().info('hello')\n"
    )
    assert len(found) == 4
    for line in found:
        assert line["event"] == "hello"
        assert JOB.items() <= line.items()
        assert 1.5 <= line["duration"] < 30


def test_lines_outside_of_a_handler_carry_no_job() -> None:
    found = events("token = running()\nlogging.info('in')\ncontext.running.reset(token)\nlogging.info('out')")
    assert "job" in found[0]
    assert "job" not in found[1]


def test_what_a_line_says_of_its_job_wins() -> None:
    assert event("running()\nlog.get().info('job.slow', job=9, duration=30.0)").items() >= {
        "job": 9, "duration": 30.0, "task": "shop.send"}.items()  # fmt: skip


def test_numbers_that_json_does_not_know_are_named() -> None:
    line = event("log.get().info('x', a=float('inf'), b=[1.5, {2: float('nan')}])")
    assert (line["a"], line["b"]) == ("inf", [1.5, {"2": "nan"}])


def test_a_traceback_is_one_string() -> None:
    found = events(
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError as error:\n"
        "    log.get().exception('failed')\n"
        "    log.get().error('failed', exc_info=True)\n"
        "    log.get().error('failed', exc_info=error)\n"
        "    log.get().error('failed', exc_info=sys.exc_info())\n"
        "    logging.exception('failed')\n"
        "    logging.error('failed', exc_info=error)\n"
    )
    assert len(found) == 6
    for line in found:
        assert (line["level"], line["event"]) == ("error", "failed")
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_extra_facts_of_the_standard_library_become_keys() -> None:
    found = event("logging.getLogger('shop').warning('sold', extra={'item': 'tea'}, stack_info=True)")
    assert (found["logger"], found["item"]) == ("shop", "tea")
    assert found["stack"].startswith("Stack (most recent call last)")


def test_warnings_and_dying_threads_and_processes_are_events() -> None:
    done = run(
        "log.configure('json', 'info')\n"
        "warnings.warn('old')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='side')\nthread.start()\nthread.join()\n"
        "class Late:\n    def __del__(self): raise ValueError('too late')\n"
        "Late()\n"
        "raise RuntimeError('the end')"
    )
    found = [json.loads(line, parse_constant=pytest.fail) for line in done.stderr.splitlines()]
    assert "old" in found[0]["event"]
    assert [(e["event"], e["level"]) for e in found[1:]] == [
        ("thread.died", "error"), ("exception.ignored", "error"), ("process.died", "critical")]  # fmt: skip
    assert "too late" in found[2]["exception"]
    assert done.returncode == 1


def test_an_application_that_configures_logging_itself_keeps_its_handlers_and_loses_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "own.log"
    found = events(
        "logging.basicConfig(force=True, level='DEBUG', format='%(message)s', handlers=[logging.StreamHandler(), "
        f"logging.FileHandler({str(path)!r})])\n"
        "structlog.configure(processors=[structlog.processors.KeyValueRenderer()])\n"
        "log.configure('json', 'info')\n"
        "logging.info('once')\nlogging.debug('for the file')\nstructlog.get_logger().info('twice')"
    )
    assert [e["event"] for e in found] == ["once", "twice"]
    assert path.read_text().splitlines() == ["once", "for the file"]


ODD = {
    "float('nan')": "nan",
    "{'a': (1, {2})}": {"a": [1, [2]]},
    "{('x', 1): None}": {"('x', 1)": None},
    "b'bytes'": "b'bytes'",
    "'\\ud800 and \\u2028'": "\ud800 and \u2028",
    "Broken()": "<Broken that cannot be shown>",
    "loop": [[[[[[[["[[...]]"]]]]]]]],
}


def test_any_value_makes_a_line() -> None:
    body = "class Broken:\n    def __repr__(self): raise RuntimeError\nloop = []\nloop.append(loop)\n"
    found = events(body + "\n".join(f"log.get().info('odd', value={value})" for value in ODD))
    assert [line["value"] for line in found] == list(ODD.values())


def test_no_log_call_fails_its_caller() -> None:
    found = events("logging.info('%d', 'x')\nlogging.info('a', 1)\nlog.get().info('x' * 10**6)\nlog.get().info(None)")
    assert [line["event"][:2] for line in found[:3]] == ["%d", "a ", "xx"]
    assert found[3]["event"] == ""


def test_a_value_that_cannot_be_shown_fails_no_caller_of_logging() -> None:
    """The handler of a job that had logged it failed by the error of its repr."""
    broken = "class Broken:\n    def __repr__(self): raise RuntimeError\n    __str__ = __repr__\n"
    calls = (
        "logging.info('%s of %s', Broken(), 7)\nlogging.info(Broken())\nlogging.info('x', extra={'value': Broken()})"
    )
    found = events(broken + calls)
    assert [line["event"] for line in found] == [
        "%s of %s <Broken that cannot be shown> 7", "<Broken that cannot be shown>", "x",
    ]  # fmt: skip
    assert found[2]["value"] == "<Broken that cannot be shown>"


def test_a_closed_standard_error_fails_nobody() -> None:
    assert run("log.configure('json', 'info')\nos.close(2)\nlog.get().info('x')").returncode == 0


def test_nobody_reading_the_log_costs_lines_and_not_the_process() -> None:
    body = (
        "r, w = os.pipe()\nos.dup2(w, 2)\nlog.configure('json', 'info')\n"
        "started = time.monotonic()\n"
        "for n in range(5000): log.get().info('line', n=n)\n"
        "assert time.monotonic() - started < 30, 'hangs'\n"
        "os.read(r, 1 << 16)\nlog.get().info('again')\nos.set_blocking(r, False)\n"
        "last = os.read(r, 1 << 16).splitlines()[-1]\n"
        "print(last.decode())"
    )
    last = json.loads(run(body).stdout)
    assert last["event"] == "again"
    assert last["dropped"] > 1000


def test_eight_processes_write_whole_lines_onto_one_pipe() -> None:
    body = (
        "from qworkerd.log import writer\n"
        "writer.WRITE_TIMEOUT = 30.0\n"
        "log.configure('json', 'info')\n"
        "children = []\n"
        "for child in range(8):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        try:\n"
        "            for n in range(1000): log.get().info('line', child=child, n=n, text='ä' * (n * 7 % 5000))\n"
        "            os._exit(0)\n"
        "        finally: os._exit(1)\n"
        "    children.append(pid)\n"
        "sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))"
    )
    done = run(body)
    assert done.returncode == 0
    lines = done.stderr.splitlines(keepends=True)
    assert all(len(line.encode()) <= PIPE_BUF for line in lines)
    seen = [(found["child"], found["n"]) for found in map(json.loads, lines)]
    assert sorted(seen) == [(child, n) for child in range(8) for n in range(1000)]


def test_a_long_traceback_loses_its_middle_and_keeps_its_end() -> None:

    frames = "\n".join(f"def f{n}(): f{n - 1}()" for n in range(1, 200))
    found = event(f"def f0(): 1 / 0\n{frames}\ntry:\n    f199()\nexcept Exception:\n    log.get().exception('x')")
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ZeroDivisionError: division by zero")
    assert "characters omitted" in found["exception"]


def test_an_event_with_too_many_keys_keeps_what_identifies_it() -> None:
    found = event("running()\nlog.get().info('crowd', **{f'key{n}': n for n in range(2000)})")
    assert (found["event"], found["job"], found["cut"]) == ("crowd", 7, True)


PASSWORDS = ["hunter2", "p@ss:w/rd", "two words", 'it\'s "quoted"', "sch\u00f6n&gut", "back\\slash"]


def test_the_password_of_the_dsn_never_appears() -> None:
    body = f"""
from urllib.parse import quote
from psycopg.conninfo import make_conninfo
for password in {PASSWORDS!r}:
    encoded = quote(password, safe='')
    for dsn in (
        make_conninfo(host="db", user="shop", password=password),
        f"postgresql://shop:{{encoded}}@db:5432/shop?sslmode=prefer",
        f"postgresql://db/shop?user=shop&password={{encoded}}",
    ):
        register_secret(dsn)
        log.get().warning("text", dsn=dsn, nested={{"dsn": [dsn]}}, password=password, parts={{"password": password}})
        log.get().warning(f"cannot reach {{dsn}}")
        logging.warning("cannot reach %s or %r", dsn, dsn)
        try:
            try:
                raise ValueError(dsn)
            except ValueError as error:
                raise RuntimeError({{"dsn": dsn}}) from error
        except RuntimeError:
            log.get().exception("x", error=sys.exc_info()[1])
        log.get().warning("alone", value=f"the word is {{password}}.")
"""
    done = run("log.configure('json', 'info')\n" + body)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(PASSWORDS) * 3 * 5
    for password in PASSWORDS:
        for shape in (password, quote(password, safe=""), json.dumps(password)[1:-1], repr(password)[1:-1]):
            assert shape not in done.stderr
            assert json.dumps(shape, ensure_ascii=False)[1:-1] not in done.stderr


def test_passwords_of_other_connection_strings_are_masked_where_they_are_recognised() -> None:
    dsns = ["postgresql://u:hunter2@h/db", "host=h password=hunter2", "host=h password='hunter2 x'"]
    found = events(
        f"for dsn in {dsns!r}:\n    try:\n        raise OSError(dsn)\n"
        "    except OSError:\n        logging.exception('no')"
    )
    assert "hunter2" not in json.dumps(found)
    assert all("***" in line["exception"] for line in found)


def test_a_password_that_is_also_the_user_does_not_make_lines_unreadable() -> None:
    found = event("register_secret('postgresql://postgres:postgres@h/db')\nlog.get().info('x', text='postgres is up')")
    assert found["text"] == "postgres is up"


def test_on_a_terminal_lines_are_for_people() -> None:
    text = on_terminal("log.configure('auto', 'info')\nlog.get().warning('job.retried', job=7, error='no luck')")
    assert "job.retried" in text
    assert "job" in text
    assert "\x1b[" in text
    assert "{" not in text


def test_colours_are_left_out_when_the_environment_says_so() -> None:
    body = "log.configure('auto', 'info')\nlog.get().warning('job.retried', job=7)"
    assert "\x1b[" not in on_terminal(body, NO_COLOR="1")
    assert "\x1b[" not in on_terminal(body, TERM="dumb")


def test_readable_lines_are_aligned_and_tracebacks_stand_below() -> None:
    done = run(
        "log.configure('console', 'info')\nlog.get().info('a', n=1)\nlog.get().warning('bb', n=2)\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.get().exception('c', n='\\x1b[2J')"
    )
    first, second, third, *rest = done.stderr.splitlines()
    assert first.index("n=1") == second.index("n=2")
    assert "\x1b" not in third
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ZeroDivisionError: division by zero"


def test_only_an_event_begins_at_the_left_edge_of_the_readable_log() -> None:
    line = "10:00:00.000 [critical ] forged"
    done = run(
        f"log.configure('console', 'info')\nfake = {line!r}\n"
        "log.get().info('a\\n' + fake, value='b\\n' + fake, **{'c\\n' + fake: 1})\n"
        "logging.getLogger('d\\n' + fake).warning('e\\n' + fake)\n"
        "try: raise ValueError('f\\n' + fake)\n"
        "except ValueError: log.get().exception('g', stack='h\\n' + fake)"
    )
    assert done.returncode == 0
    assert done.stderr.count("forged") == 7
    assert not [found for found in done.stderr.splitlines() if found.startswith(line)]


def test_what_a_terminal_obeys_is_shown_in_every_format() -> None:
    for kind in ("json", "console"):
        done = run(
            f"log.configure('{kind}', 'info')\nbad = '\\x1b[2J\\x9b1m\\u202e\\x7f\\ufeff\\U000e0041\\ud800'\n"
            "log.get().info(bad, value=bad, parts=[bad, {bad: bad}], **{bad: bad})\n"
            "try: raise ValueError(bad)\nexcept ValueError: logging.getLogger(bad).exception(bad)"
        )
        assert done.returncode == 0
        assert "log.failed" not in done.stderr
        assert not set(done.stderr) & set("\x1b\x9b\u202e\x7f\ufeff\U000e0041")


def test_values_are_bounded_before_they_are_looked_into() -> None:
    found = event(
        "log.get().info('x', text='p' * 50_000_000, many=list(range(3_000_000)), number=1 << 100_000,"
        " wide={str(n): [n] * 100 for n in range(5_000)}, octets=bytes(10_000_000))"
    )
    assert found["event"] == "x"
    assert found["number"] == "<a number of 100001 bits>"


def on_terminal(body: str, **environ: str) -> str:
    """Run with a terminal as standard error and return what it showed."""
    master, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", PRELUDE + body],
            env=os.environ | {"TERM": "xterm"} | environ, stderr=terminal, timeout=60, check=True,
        )  # fmt: skip
        return os.read(master, 65536).decode()
    finally:
        os.close(terminal)
        os.close(master)
