"""Tables in a terminal of eighty columns: nothing essential is cut off."""

import os
import pty
import re
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from qworkerd.cli.layout import lines, lines_with_note
from qworkerd.cli.tables import timestamp
from tests.database import Database

HEAD = ("ID", "TASK", "NOTE")
TEXT = (False, False, False)


def test_what_fits_is_left_as_it_is() -> None:
    rows = [("1", "shop.send", "fine")]
    assert list(lines(HEAD, rows, (True, False, False), 80)) == ["ID  TASK       NOTE", " 1  shop.send  fine"]


@pytest.mark.parametrize("room", [40, 50, 79])
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(room: int) -> None:
    rows = [("1234567", "shop.orders.send_the_invoice_again", "value " * 9), ("2", "x" * 90, "-")]
    shown = list(lines(HEAD, rows, TEXT, room))
    assert max(map(len, shown)) <= room
    assert sorted("".join("".join(shown).split())) == sorted("".join("".join((*HEAD, *rows[0], *rows[1])).split()))


def test_cells_are_broken_at_spaces_and_after_marks() -> None:
    shown = list(lines(("A", "B"), [("1", "critical,default,mail low priority")], (True, False), 22))
    assert shown == ["A  B", "1  critical,default,", "   mail low priority"]


def test_a_note_without_room_goes_below_its_row() -> None:
    rows = [("1", "shop.send", "ValueError: " + "no such thing " * 3), ("2", "shop.send", "-")]
    shown = list(lines_with_note(HEAD, rows, TEXT, 40))
    assert shown == [
        "ID  TASK",
        "1   shop.send",
        "    ValueError: no such thing no such",
        "    thing no such thing",
        "2   shop.send",
    ]


def test_a_note_goes_below_a_row_that_has_to_be_broken_too() -> None:
    rows = [("1", "shop.orders.send_invoice", "2026-01-31 09:00:00+05:30", "ValueError: no such thing")]
    shown = list(lines_with_note(("ID", "TASK", "DUE", "NOTE"), rows, (*TEXT, False), 32))
    assert shown == [
        "ID  TASK          DUE",
        "1   shop.orders.  2026-01-31",
        "    send_invoice  09:00:00+05:30",
        "    ValueError: no such thing",
    ]


def test_a_long_note_says_that_it_goes_on() -> None:
    (*_, last) = lines_with_note(HEAD, [("1", "shop.send", "word " * 200)], TEXT, 60)
    assert last.endswith(" …")


def test_a_terminal_too_narrow_for_columns_gets_a_block_a_row() -> None:
    head, rows = ("NAME", "HOST", "QUEUES"), [("a" * 12, "b" * 12, "c" * 30), ("d", "e", "f")]
    assert list(lines(head, rows, TEXT, 24)) == [
        "NAME    " + "a" * 12, "HOST    " + "b" * 12, "QUEUES  " + "c" * 16, "        " + "c" * 14, "",
        "NAME    d", "HOST    e", "QUEUES  f",
    ]  # fmt: skip


def test_times_carry_their_zone() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert timestamp(noon) == "2026-01-31 12:00:00+00"
    assert timestamp(noon.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-01-31 17:30:00+05:30"
    assert timestamp(noon.astimezone(timezone(timedelta(hours=-3.5)))) == "2026-01-31 08:30:00-03:30"


def terminal(columns: int, *words: str, **environ: str) -> str:
    """Run the command in a terminal of this width; return what it writes there."""
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, columns))
        process = subprocess.Popen(
            [sys.executable, "-m", "qworkerd", *words],
            stdout=slave, stderr=slave,
            env={k: v for k, v in os.environ.items() if k not in {"COLUMNS", "NO_COLOR"}} | {"TERM": "dumb"} | environ,
        )  # fmt: skip
        os.close(slave)
        text = b""
        while True:
            try:
                text += os.read(master, 65536)
            except OSError:  # EIO: nobody holds the other end any more
                break
        assert process.wait(30) == 0, text
        return text.decode().replace("\r", "")
    finally:
        os.close(master)


def test_in_eighty_columns_a_failed_jobs_note_and_time_are_seen(database: Database) -> None:
    error = {"type": "ConnectionError", "message": "the mail server at smtp.internal did not answer within 30 seconds"}
    database.connect().execute(
        "INSERT INTO qworker.job (state, task, queue, attempt, failed_at, errors)"
        " VALUES ('failed', 'shop.orders.send_invoice', 'emails', 25, now(), %s)",
        [Jsonb([error])],
    )
    shown = terminal(80, "jobs", "list", QWORKER_DSN=database.dsn, TZ="Asia/Kolkata")
    assert max(map(len, shown.splitlines())) <= 80
    assert "did not answer within 30 seconds" in " ".join(shown.split())
    assert "+05:30" in shown


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    rows = [("1", "日本語", "x"), ("2", "e\u0301a", "x"), ("3", "plain", "x")]
    assert list(lines(("ID", "TASK", "Z"), rows, TEXT, 80)) == [
        "ID  TASK    Z",
        "1   日本語  x",
        "2   e\u0301a      x",
        "3   plain   x",
    ]


def test_wide_characters_are_broken_where_they_leave_the_terminal() -> None:
    shown = list(lines(HEAD, [("1", "日本語のとても長い名前のタスク", "エラーです" * 9)], TEXT, 40))
    assert max(sum(2 if ord(character) > 0x2E80 else 1 for character in line) for line in shown) <= 40
    assert "".join("".join(shown[1:]).split()).count("エラーです") >= 1


def test_a_name_is_broken_after_a_dash_rather_than_in_a_word() -> None:
    shown = list(lines(("NAME", "TASK"), [("nightly-report-of-everything", "shop.tasks.nightly_report")], TEXT[:2], 36))
    assert shown[1].split() == ["nightly-report-", "shop.tasks."]


def test_a_line_knows_where_its_cells_are() -> None:
    rows = [("1", "shop.send", "ValueError: " + "no such thing " * 3), ("2", "日本語" * 9, "-")]
    texts = {None: HEAD} | dict(enumerate(rows))
    for room in (None, 60, 40, 24):
        for show in (lines, lines_with_note):
            found: dict[tuple[int | None, int], str] = {}
            for line in show(HEAD, rows, (True, False, False), room):
                for start, end, row, column in line.spans:
                    found[row, column] = found.get((row, column), "") + line[start:end]
            for (row, column), shown in found.items():
                whole = "".join(texts[row][column].split()) * (2 if row is None else 1)  # blocks repeat the head
                assert whole.startswith("".join(shown.split()).removesuffix("…")), (room, row, column)
            assert {(row, column) for row in (0, 1) for column in (0, 1)} <= found.keys()


COLOR = re.compile(r"\x1b\[[0-9;]*m")


def test_with_rich_a_terminal_with_colors_shows_what_needs_a_look(database: Database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.job (state, task, queue, attempt, failed_at, errors)"
            " VALUES ('failed', '[red]shop[/].failed', 'emails', 25, now(), %s)",
            [Jsonb([{"type": "ValueError", "message": "\x1b[32mgreen :smile: https://a.example"}])],
        )
        conn.execute("INSERT INTO qworker.job (task, queue) VALUES ('shop.available', 'emails')")
    plain = terminal(120, "jobs", "list", QWORKER_DSN=database.dsn)
    assert "\x1b" not in plain
    colorful = terminal(120, "jobs", "list", QWORKER_DSN=database.dsn, TERM="xterm-256color")
    assert COLOR.sub("", colorful) == plain  # only colors are added: nothing is markup, a link or an emoji
    assert "\x1b[31mfailed\x1b[0m" in colorful
    assert "\x1b[1mSTATE\x1b[0m" in colorful
    assert "31m" not in colorful.replace("\x1b[31mfailed\x1b[0m", "")
    for variables in ({"NO_COLOR": "1", "TERM": "xterm-256color"}, {"TERM": ""}):
        assert terminal(120, "jobs", "list", QWORKER_DSN=database.dsn, **variables) == plain


def test_colors_leave_the_width_as_it_is(database: Database) -> None:
    database.connect().execute(
        "INSERT INTO qworker.job (state, task, queue, attempt, failed_at)"
        " SELECT 'failed', repeat('shop.a_long_name', 4), 'emails', 25, now() FROM generate_series(1, 3)"
    )
    for columns in (30, 80):
        shown = [terminal(columns, "jobs", "list", QWORKER_DSN=database.dsn, TERM=term) for term in ("dumb", "xterm")]
        assert COLOR.sub("", shown[1]) == shown[0] != shown[1]


def test_without_rich_tables_have_no_colors(database: Database, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not here')")
    database.connect().execute("INSERT INTO qworker.job (task, queue) VALUES ('shop.available', 'emails')")
    shown = terminal(
        80,
        "jobs",
        "list",
        QWORKER_DSN=database.dsn,
        TERM="xterm",
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    assert "available" in shown
    assert "\x1b" not in shown
