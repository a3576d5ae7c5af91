"""What the doctor finds, for the banner of the overview and the page of the doctor: looked for in the background."""

from typing import Any

from qworker.findings import Finding, Severity
from qworkerd.doctor.catalogue import select
from qworkerd.doctor.examination import Examination, examine
from qworkerd.web.view import View

#: How long an examination is shown (seconds); it makes about fifty statements.
PERIOD = 60.0


def examination(view: View) -> Examination | None:
    """Return the last examination; None while the first one is being made."""

    def make(conn: Any) -> Examination:
        return examine(conn, view.source.schema, select((), deep=False))

    return view.share_late("doctor", PERIOD, make)


def findings(view: View) -> list[Finding]:
    """Return the findings that are more than hints, the most urgent first; none while the first look goes on."""
    found = examination(view)
    return [] if found is None else [one for one in found.findings if one.severity is not Severity.HINT]
