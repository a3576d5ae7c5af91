"""Makes the checks again and again, and reports what changes."""

from collections.abc import Callable
from datetime import datetime

import psycopg

from qworker.errors import DatabaseUnavailable
from qworker.findings import Finding, Severity
from qworkerd.doctor.changes import Change, KnownFindings
from qworkerd.doctor.examination import PRIVILEGES, Examination
from qworkerd.doctor.webhook import WebhookError, encode, message, post

#: The id of the finding that the database cannot be reached; it has no check.
UNREACHABLE = "unreachable"


class Watch:
    """Repeats an examination. A change that the webhook has not accepted is sent with the next ones."""

    def __init__(
        self,
        examine: Callable[[], Examination],
        checks: frozenset[str],
        report: Callable[[str], object],
        *,
        webhook: str | None,
        sleep: Callable[[float], object],
        subject: tuple[str, str],
    ) -> None:
        """Examine makes the checks with the ids `checks`; subject is the database and the schema."""
        self._examine = examine
        self._checks = checks
        self._report = report
        self._webhook = webhook
        self._sleep = sleep
        self._subject = subject
        self._shown, self._sent = KnownFindings(), KnownFindings()

    def round(self) -> None:
        """Make the checks once, and report what has changed."""
        findings, made = self._findings()
        if change := self._shown.compare(findings, made):
            for line in _lines(change):
                self._report(line)
            self._shown.accept(change)
        if self._webhook is not None and (change := self._sent.compare(findings, made)):
            try:
                post(self._webhook, encode(message(change, *self._subject)), self._sleep)
            except WebhookError as error:
                self._report(f"{_now()} not sent: {error}; sent again with the next changes")
            else:
                self._sent.accept(change)

    def _findings(self) -> tuple[list[Finding], set[str]]:
        """Return the findings, and the checks that were made."""
        try:
            result = self._examine()
        except (DatabaseUnavailable, psycopg.OperationalError) as error:
            problem = str(error).strip().splitlines()[0]
            return [Finding(UNREACHABLE, "", Severity.STOPS, f"the database cannot be reached: {problem}")], set()
        skipped = {skipped.check for skipped in result.skipped}
        return result.findings, {UNREACHABLE, PRIVILEGES, *self._checks} - skipped


def _lines(change: Change) -> list[str]:
    found = [f"{_now()} {finding.severity}: {finding.check}: {finding.summary}" for finding in change.found]
    return found + [f"{_now()} resolved: {finding.check} {finding.about}".rstrip() for finding in change.resolved]


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
