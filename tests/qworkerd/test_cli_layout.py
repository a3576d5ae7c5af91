"""Tables in a terminal of eighty columns: nothing essential is cut off."""

import os
import pty
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta, timezone

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
            stdout=slave, stderr=slave, env={k: v for k, v in os.environ.items() if k != "COLUMNS"} | environ,
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
