"""Look for problems of the database, the queues and the nodes."""

import signal
from contextlib import suppress
from itertools import zip_longest
from time import sleep
from typing import Any

import click

from qworker.db.dsn import display
from qworker.findings import Severity
from qworker.nearest import not_found
from qworkerd.cli.options import Duration, app_optional, refuse
from qworkerd.cli.paragraphs import paragraph, room
from qworkerd.cli.tables import as_json, safe_echo
from qworkerd.config.target import Target
from qworkerd.doctor.catalogue import CHECKS, IDS, select
from qworkerd.doctor.examination import DEEP_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT, Examination, Skipped, examine
from qworkerd.doctor.manual import explanation
from qworkerd.doctor.watch import UNREACHABLE, Watch
from qworkerd.doctor.webhook import as_record as as_finding_record
from qworkerd.doctor.webhook import check_url
from qworkerd.process import exits

COLORS = {Severity.STOPS: "red", Severity.WARNING: "yellow", Severity.HINT: "cyan"}
#: The exit code for the most severe finding.
STOPS_EXIT, FOUND_EXIT = 2, 1
#: Time between two rounds of --watch, and its minimum (seconds).
WATCH_INTERVAL, MIN_INTERVAL = 60.0, 1.0
#: Width of lines if the output is not a terminal, and their indentation.
WIDTH, INDENT = 80, "        "


class CheckId(click.Choice[str]):
    """The id of a check. There are too many of them for the message about another one."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's
        """Return the message with the nearest id."""
        return not_found("check", str(value), self.choices, listing="doctor --list")


@click.command(short_help="Look for problems of the database, the queues and the nodes.")
@click.option("--only", multiple=True, metavar="ID", type=CheckId(IDS), help="Only this check; repeatable.")
@click.option("--deep", is_flag=True, help="Also make checks that read much; these may take minutes.")
@click.option(
    "--explain", metavar="ID", type=CheckId([*IDS, UNREACHABLE]), help="Print what a check looks for, and its limits."
)
@click.option("--list", "list_checks", is_flag=True, help="Print the ids of all checks.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@click.option("--watch", is_flag=True, help="Make the checks again and again, and print what changes, until Ctrl-C.")
@click.option(
    "--interval", type=Duration(), metavar="DURATION", help="With --watch: time between two rounds. [default: 1m]"
)
@click.option(
    "--webhook", metavar="URL", envvar="QWORKER_WEBHOOK", show_envvar=True,
    help="With --watch: send changes to this URL as JSON, by POST.",
)  # fmt: skip
@app_optional
def doctor(
    target: Target, *, only: tuple[str, ...], deep: bool, explain: str | None, list_checks: bool, json_output: bool,
    watch: bool, interval: float | None, webhook: str | None,
) -> None:  # fmt: skip
    """Look for problems of the database, the queues and the nodes, and print a remedy for each.

    Changes nothing: each check is one statement in a read-only transaction that ends after two seconds.

    Exits with status 0 if nothing was found, 1 if the findings are warnings and hints, and 2 if one of them stops jobs.
    """
    if explain is not None or list_checks:
        what = "--explain" if explain is not None else "--list"
        refuse("only", "deep", "watch", "webhook", "interval", "json_output", why=f"has no effect with {what}")
    if explain is not None:
        for line in explanation(explain).splitlines():
            paragraph(line, room(WIDTH))
        return
    if list_checks:
        for name in IDS:
            click.echo(name)
        return
    if watch:
        refuse("json_output", why="has no effect with --watch, which prints lines: --webhook sends JSON")
        _watch(target, only, WATCH_INTERVAL if interval is None else max(interval, MIN_INTERVAL), webhook, deep=deep)
        return
    refuse("interval", "webhook", why="needs --watch")
    result = _examine(target, only, deep=deep)
    if json_output:
        as_json(as_record(result))
    else:
        show(result)
    click.get_current_context().exit(exit_code(result))


def _examine(target: Target, only: tuple[str, ...], *, deep: bool) -> Examination:
    checks = select(only, deep=deep)
    timeout = DEEP_TIMEOUT if any(check.deep for check in checks) else STATEMENT_TIMEOUT
    with target.connection("doctor", statement_timeout=timeout, lock_timeout=LOCK_TIMEOUT) as database:
        result = examine(database, target.schema, checks, direct=target.settings.direct_dsn is not None)
    if not only:
        result.left_out += [
            Skipped(check.id, "needs --deep, as it reads all tables") for check in CHECKS if check not in checks
        ]
    return result


def _watch(target: Target, only: tuple[str, ...], interval: float, webhook: str | None, *, deep: bool) -> None:
    try:
        url = None if webhook is None else check_url(webhook)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    checks = frozenset(check.id for check in select(only, deep=deep))
    rounds = Watch(
        lambda: _examine(target, only, deep=deep), checks, safe_echo,
        webhook=url, sleep=sleep, subject=(display(target.dsn), target.schema),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as process 1 of a container it would be ignored
    with suppress(KeyboardInterrupt):
        while True:
            rounds.round()
            sleep(interval)


def exit_code(result: Examination) -> int:
    """Return the exit code of a result."""
    if result.worst is None:
        return exits.OK
    return STOPS_EXIT if result.worst is Severity.STOPS else FOUND_EXIT


def as_record(result: Examination) -> dict[str, Any]:
    """Return a result for JSON."""
    return {
        "checks": result.checks,
        "missing_privileges": result.missing_privileges or None,
        "not_looked_at": result.skipped,
        "left_out": result.left_out,
        "findings": [as_finding_record(finding) for finding in result.findings],
    }


def show(result: Examination) -> None:
    """Print a result for people: what could not be seen first, then the findings, the most severe first."""
    width = room(WIDTH)
    if result.missing_privileges:
        paragraph(result.missing_privileges, width, label="not looked at", color="yellow", indent=INDENT)
    for skipped in result.skipped:
        if skipped.check not in result.denied and not (result.missing_privileges and "pg_" in skipped.reason):
            paragraph(f"{skipped.check}: {skipped.reason}", width, label="not looked at", color="yellow", indent=INDENT)
    for finding, following in zip_longest(result.findings, result.findings[1:]):
        click.echo()
        color = COLORS[finding.severity]
        paragraph(f"{finding.check}: {finding.summary}", width, label=finding.severity, color=color, indent=INDENT)
        if finding.advice:
            paragraph(finding.advice, width, indent=INDENT)
        for line in finding.remedy:  # never wrapped, so that it can be copied
            safe_echo(line, prefix=f"{INDENT}  ")
        if following is None or following.check != finding.check:
            safe_echo(finding.documentation, prefix=INDENT)
    if result.findings:
        click.echo()
    found = len(result.findings)
    summary = f"{found} finding{'s' * (found != 1)}" if found else "nothing found"
    of_all = f" of {len(IDS)}" if result.left_out else ""
    click.echo(f"{summary} by {result.checks}{of_all} check{'s' * (bool(of_all) or result.checks != 1)}")
    for check in result.left_out:
        paragraph(f"{check.check}: {check.reason}", width, label="left out", color="cyan", indent=INDENT)
