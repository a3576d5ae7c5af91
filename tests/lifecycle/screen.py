"""`qworker top` on a terminal that a test drives by keys and reads as text."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from textual.pilot import Pilot

from qworker.db.pool import Pool
from qworkerd.doctor.catalogue import CHECKS
from qworkerd.doctor.examination import examine
from qworkerd.top.actions import Actions
from qworkerd.top.app import TopApp
from qworkerd.top.reading import Diagnosis, Reader

#: What takes milliseconds may take this long on a loaded machine (seconds).
SOON = 30.0


class Screen:
    """The program and its keyboard."""

    def __init__(self, app: TopApp, pilot: Pilot[int]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        """The text of the screen in front."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Write into a prompt."""
        for character in text:
            await self.pilot.press({" ": "space", ":": "colon"}.get(character, character))

    async def until(self, condition: Callable[[], Any], seconds: float = SOON) -> Any:
        """Return the condition's first true value, and fail with the screen after so many seconds."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s on:\n{self.text}"
            await self.pilot.pause(0.02)
        return value

    async def shows(self, *parts: str, seconds: float = SOON) -> str:
        """Wait until the screen shows all of these; return its text."""
        await self.until(lambda: all(part in self.text for part in parts), seconds)
        return self.text


def top(dsn: str, *, read_only: bool = False, interval: float = 0.1, **options: Any) -> TopApp:
    """Return the program for a database, refreshed more often than usual."""
    pool = Pool(dsn)
    checks = [partial(_check, check) for check in CHECKS if not check.deep]
    return TopApp(Reader(pool, checks), Actions(pool, read_only=read_only), "the test", interval=interval, **options)


def _check(which: Any, conn: Any) -> Diagnosis:
    return Diagnosis(tuple(examine(conn, "qworker", [which]).findings))


def drive(app: TopApp, scenario: Callable[[Screen], Awaitable[None]], size: tuple[int, int] = (100, 30)) -> None:
    """Run the program with a scenario."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, pilot)
            await screen.until(lambda: app.frame is not None)
            await scenario(screen)

    asyncio.run(run())
