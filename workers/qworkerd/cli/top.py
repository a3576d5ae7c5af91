"""Show a cluster on the terminal, refreshed every second."""

import os
import sys
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from time import monotonic, sleep
from typing import Any

import click

from qworker.db.dsn import short_name
from qworker.db.pool import Connection
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import QworkerError
from qworker.filters import InvalidFilter, parse
from qworker.filters.rows import check
from qworkerd.cli.options import app_optional, refuse
from qworkerd.cli.tables import as_json_line, safe_echo
from qworkerd.cli.wanted import FilterCommand, filter_argument, filter_of, usage_error
from qworkerd.config.target import Target
from qworkerd.doctor.catalogue import CHECKS
from qworkerd.doctor.check import Check as CheckOfDoctor
from qworkerd.doctor.examination import examine
from qworkerd.process import exits
from qworkerd.top import plain
from qworkerd.top.actions import Actions
from qworkerd.top.reading import CHECK_TIME, Check, Diagnosis, Query, Reader, Tab, view_of

#: Shortest time between two refreshes (seconds).
MIN_INTERVAL = 0.2
#: How long the checks of the doctor may take for a single frame (seconds).
ALL_CHECKS = 20.0


@click.command(cls=FilterCommand, short_help="Show the cluster on the terminal, refreshed every second.")
@filter_argument()
@click.option("--tab", type=click.Choice([each.value for each in Tab]), default=None, help="The first tab.")
@click.option("--once", is_flag=True, help="Print one frame as text of 80 columns, and end.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object for each refresh; with --once, one.")
@click.option("--read-only", is_flag=True, help="Change nothing, whatever key is pressed.")
@click.option(
    "--interval", type=click.FloatRange(MIN_INTERVAL, 3600), default=1.0, metavar="SECONDS",
    help="Time between two refreshes. [default: 1]",
)  # fmt: skip
@app_optional
def top(
    target: Target, *, words: tuple[str, ...], tab: str | None, once: bool, json_output: bool, read_only: bool,
    interval: float,
) -> None:  # fmt: skip
    """Show queues, running jobs, failures, nodes, schedules and findings of the doctor, and act on them.

    The key ? shows all keys. FILTER is that of the first tab, like `queue:mail error:TimeoutError`; the tab is then
    failures unless --tab names another one.

    Without a terminal, or if TERM is dumb, one frame is printed as with --once.
    """
    query = _query(tab, words)
    if once:
        refuse("interval", why="has no effect with --once")
    pool = target.admin.pool
    reader = Reader(pool, checks(target))
    if once or json_output or not _interactive():
        try:
            _print(reader, query, _where(target), interval, once=once or not json_output, json_output=json_output)
        finally:
            reader.close()
        return
    if find_spec("textual") is None:
        safe_echo(
            "qworker top needs the package textual: pip install 'pgqworker[top]'; without it, `qworker top --once` "
            "prints one frame", err=True,
        )  # fmt: skip
        click.get_current_context().exit(exits.CONFIG)
    from qworkerd.top.app import TopApp

    app = TopApp(
        reader, Actions(pool, read_only=read_only), _where(target), tab=query.tab, wanted=query.text, interval=interval
    )
    click.get_current_context().exit(app.run() or app.return_code or 0)


def checks(target: Target) -> list[Check]:
    """Return the checks of the doctor that read little."""
    direct = target.settings.direct_dsn is not None

    def check(which: CheckOfDoctor, conn: Connection) -> Diagnosis:
        result = examine(conn, target.schema, [which], direct=direct)
        notes = [result.missing_privileges] if result.missing_privileges else []
        notes += [f"{skipped.check} was not checked: {skipped.reason}" for skipped in result.skipped if not notes]
        return Diagnosis(tuple(result.findings), tuple(notes))

    return [partial(check, which) for which in CHECKS if not which.deep]


def _query(tab: str | None, words: tuple[str, ...]) -> Query:
    wanted = filter_of(words)
    chosen = Tab(tab) if tab else Tab.FAILURES if words else Tab.OVERVIEW
    text = str(wanted)
    query = Query(chosen, parse(text), text, jobs=bool(words))
    view = view_of(query)
    if words and view is None:
        raise click.UsageError(f"the tab {chosen.value} has no filter")
    if view is not None and view.fields is not None:
        try:
            check(wanted, query.text, view.fields)
        except InvalidFilter as error:
            raise usage_error(error) from None
    return query


def _where(target: Target) -> str:
    where = short_name(target.dsn) or "the database of libpq's variables"
    return where if target.schema == DEFAULT_SCHEMA else f"{where} ({target.schema})"


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def _print(
    reader: Reader, query: Query, where: str, interval: float, *, once: bool, json_output: bool
) -> None:  # fmt: skip
    with suppress(KeyboardInterrupt):
        while True:
            began = monotonic()
            frame: Any = None
            try:
                frame = reader.read(query, check_time=ALL_CHECKS if once else CHECK_TIME)
            except QworkerError as error:
                if once:
                    raise
                as_json_line({"error": str(error)})
            if frame is not None and json_output:
                as_json_line(plain.record(frame))
            elif frame is not None:
                for line in plain.text(frame, f"qworker top  {where}").splitlines():
                    safe_echo(line)
            if once:
                return
            sleep(max(0.0, began + interval - monotonic()))
