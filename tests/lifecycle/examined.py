"""The application under test, with a scheduler that makes its checks often, and a hook for what they find."""

import qworkerd.scheduler.routine
from qworker.findings import Finding
from tests.lifecycle.application import note
from tests.lifecycle.handlers import app

__all__ = ["app"]

vars(qworkerd.scheduler.routine)["CHECKUP_INTERVAL"] = 0.3


@app.on_finding
def breaks(_finding: Finding, _resolved: bool) -> None:
    raise SystemExit("a broken hook")


@app.on_finding
def tell(finding: Finding, resolved: bool) -> None:
    note("found", check=finding.check, resolved=resolved)
