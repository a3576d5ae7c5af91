"""`qworker top` by mouse."""

from textual import events

from qworkerd.top.bars import TabBar
from qworkerd.top.reading import Tab
from qworkerd.top.table import RowTable
from tests.database import Database
from tests.lifecycle.screen import Screen, drive, top


def table_of(screen: Screen) -> RowTable:
    table = screen.app.table
    assert table is not None
    return table


async def click(screen: Screen, part: str, times: int = 1) -> None:
    """Click where the screen shows a text."""
    line = next(number for number, text in enumerate(screen.lines) if part in text)
    await screen.pilot.click(offset=(screen.lines[line].index(part), line), times=times)


def turn(table: RowTable) -> None:
    """Turn the wheel by a line."""
    table.post_message(events.MouseScrollDown(table, 5, 5, 0, 1, 0, shift=False, meta=False, ctrl=False))


def queues(database: Database, first: int, last: int) -> None:
    database.connect().execute(
        "INSERT INTO qworker.job (queue, task) SELECT 'queue-' || lpad(n::text, 3, '0'), 'work'"
        " FROM generate_series(%s::integer, %s::integer) AS s (n)",
        [first, last],
    )


def test_a_click_goes_to_a_tab(database: Database) -> None:
    async def scenario(screen: Screen) -> None:
        for tab in reversed(Tab):
            await click(screen, tab.title())
            await screen.until(lambda tab=tab: screen.app.tab is tab)  # type: ignore[misc]
        assert screen.app.query_one(TabBar).active is Tab.OVERVIEW

    drive(top(database.dsn), scenario)


def test_clicks_choose_and_open_a_row_and_close_it(database: Database) -> None:
    queues(database, 1, 20)

    async def scenario(screen: Screen) -> None:
        await click(screen, "Queues")
        await screen.shows("queue-007")
        await click(screen, "queue-007")
        await screen.shows("7 of 20")
        await click(screen, "queue-009", times=2)
        await screen.shows("Esc close", "queue-009")
        await click(screen, "Esc close")
        await screen.pilot.pause()
        assert "Esc close" in screen.text  # a click in the box is none beside it
        await screen.pilot.click(offset=(0, 0))
        await screen.until(lambda: "Esc close" not in screen.text)
        assert table_of(screen).cursor == 8

    drive(top(database.dsn), scenario)


def test_a_click_on_a_title_sorts_and_the_next_one_reverses(database: Database) -> None:
    queues(database, 1, 20)

    async def scenario(screen: Screen) -> None:
        await click(screen, "Queues")
        await screen.shows("queue-001")
        for first in ("queue-020", "queue-001"):
            await click(screen, "QUEUE")
            await screen.until(lambda first=first: table_of(screen).rows[0].name == first)  # type: ignore[misc]

    drive(top(database.dsn), scenario)


def test_a_refresh_does_not_take_back_what_the_wheel_has_scrolled(database: Database) -> None:
    queues(database, 101, 200)

    async def scenario(screen: Screen) -> None:
        await click(screen, "Queues")
        await screen.shows("queue-101", "1 of 100")
        table = table_of(screen)
        for _ in range(10):
            turn(table)
        await screen.until(lambda: "queue-101" not in screen.text)
        queues(database, 1, 1)  # now the row of the cursor is the second one
        await screen.shows("2 of 101")
        assert "queue-101" not in screen.text
        await screen.press("j")
        await screen.shows("3 of 101", "queue-102")

    drive(top(database.dsn), scenario)
