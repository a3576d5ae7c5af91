"""The addresses of pages by what they show. Templates know them as `link`."""

from urllib.parse import urlencode

from flask import request

from qworkerd.web.spans import Span

#: Characters that a query may have as they are, so that filters stay legible.
SAFE = ":,*/"
#: How long counts of errors are kept (seconds).
ERRORS_KEPT = 7 * 86_400


def to(path: str, **parameters: object) -> str:
    """Return the address of a path of the dashboard, wherever it is mounted; parameters that are None are left out."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None}, safe=SAFE)
    return f"{request.script_root}{path}" + (f"?{query}" if query else "")


def job(job_id: int) -> str:
    """Return the address of a job."""
    return to(f"/jobs/{job_id}")


def jobs(words: str) -> str:
    """Return the address of the jobs that match a filter."""
    return to("/jobs", q=words)


def errors(span: Span) -> str:
    """Return the address of the groups of errors that occurred in the time of a page, if counts are kept as long."""
    return to("/errors", state="all", **(span.parameters if span.seconds <= ERRORS_KEPT else {}))


def queue(name: str, span: Span | None = None) -> str:
    """Return the address of a queue; span: the time of which it shows counts."""
    return to("/queue", name=name, **(span.parameters if span else {}))


def task(name: str, span: Span | None = None) -> str:
    """Return the address of a task; span: the time of which it shows counts."""
    return to("/task", name=name, **(span.parameters if span else {}))


def part(path: str, span: Span, **parameters: object) -> str:
    """Return the address of a part of the time of a page, which charts.js completes; it replaces what comes first."""
    return to(path, **span.brush, **parameters)


def operation(number: int) -> str:
    """Return the address of an operation."""
    return to(f"/operations/{number}")
