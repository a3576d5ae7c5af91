"""What the doctor has found: each problem with its evidence and its remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint

from qworker.findings import Finding
from qworkerd.doctor.examination import Skipped
from qworkerd.web import health, texts
from qworkerd.web.answers import page
from qworkerd.web.pages import Entry
from qworkerd.web.view import View

blueprint = Blueprint("doctor", __name__)
entry = Entry("doctor.index", texts.doctor.DOCTOR, "d")


@dataclass(frozen=True, slots=True)
class DoctorData:
    """What the page shows."""

    #: Whether an examination has been made yet.
    examined: bool
    findings: Sequence[Finding]
    #: Checks that were not made, or only in part.
    skipped: Sequence[Skipped]
    #: The number of checks that were made.
    checks: int
    #: The privileges that the role of the dashboard lacks to make all checks, and how to grant them.
    missing_privileges: str

    def with_words(self) -> list[tuple[Finding, str]]:
        """Return the findings, the most urgent first, each with what its severity means."""
        return [(one, texts.doctor.SEVERITIES[one.severity.value]) for one in self.findings]

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of the page has."""
        return {name: getattr(self, name) for name in self.__slots__} | {"findings": [*map(record, self.findings)]}


@page(blueprint, "/doctor", title=texts.doctor.DOCTOR, table=lambda data: table(data.findings))
def index(view: View) -> DoctorData:
    """Return the findings of the last examination."""
    found = health.examination(view)
    if found is None:
        return DoctorData(examined=False, findings=(), skipped=(), checks=0, missing_privileges="")
    return DoctorData(
        examined=True, findings=found.findings, skipped=found.skipped, checks=found.checks,
        missing_privileges=found.missing_privileges,
    )  # fmt: skip


def record(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON."""
    return {
        "check": finding.check, "about": finding.about, "severity": finding.severity, "summary": finding.summary,
        "advice": finding.advice, "remedy": list(finding.remedy), "evidence": finding.evidence,
        "documentation": finding.documentation,
    }  # fmt: skip


def table(findings: Iterable[Finding]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the findings for a spreadsheet."""
    head = ("severity", "check", "about", "summary", "advice", "remedy", "documentation")
    return head, (
        (one.severity, one.check, one.about, one.summary, one.advice, "\n".join(one.remedy), one.documentation)
        for one in findings
    )  # fmt: skip
