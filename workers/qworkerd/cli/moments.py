"""Times on the command line, and the time between two of them of which counts are shown."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from qworker.durations import parse_duration
from qworker.interval import Interval
from qworkerd.cli.running import local_time

F = TypeVar("F", bound=Callable[..., Any])


class Moment(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """A time, or how long ago it was."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime; one without an offset is in the local time zone."""
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time: pass 2h, 7d, or 2026-01-31T09:00", param, ctx)


MOMENT = Moment()


def between(command: F) -> F:
    """Add the options --from and --to as `begin` and `end`; see `interval_of`."""
    command = click.option(
        "--to", "end", type=MOMENT, metavar="TIME", help="The end of that time. [default with --from: now]"
    )(command)
    return click.option(
        "--from", "begin", type=MOMENT, metavar="TIME",
        help="The counts from this time on: 2h, 7d, or 2026-01-31T09:00, in the local time zone without an offset.",
    )(command)  # fmt: skip


def interval_of(
    begin: datetime | None, end: datetime | None, around: Callable[[datetime, datetime], Interval] = Interval.around
) -> Interval | None:
    """Return the time of --from and --to in whole parts of what is kept, which `around` makes; None without them."""
    if begin is None and end is None:
        return None
    if begin is None:
        raise click.UsageError("--from is missing: --to is the end of the time that begins there")
    try:
        return around(begin, end or datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(f"--from and --to: {error}") from None


def words(interval: Interval) -> str:
    """Return an interval in the local time zone, for messages."""
    return f"from {local_time(interval.begin)} to {local_time(interval.end)}"
