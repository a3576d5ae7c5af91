"""What the dashboard says: every text of its pages, actions and errors, and nothing else.

A module for what belongs together, mostly a page. Templates have them as `t`: `{{ t.jobs.EMPTY }}`. Scripts find theirs
in attributes that templates write. To have the dashboard speak another language, replace this package.

A text is a constant, or a function if it depends on numbers or names. No text has markup. A text with {places} is for
the filter `fill`, which puts elements into it: `{{ t.job.ENDED_AT|fill(at=ui.time(at)) }}`; into what a function
returns for `fill`, it puts numbers only.

What is not said here: names and values of the user, words of filters, states in JSON and CSV, and the findings, reasons
and errors of the client package, which are those of the command line as well.
"""

from qworkerd.web.texts import (
    actions,
    audit,
    charts,
    compare,
    doctor,
    errors,
    frame,
    job,
    jobs,
    operations,
    overview,
    quantities,
    queues,
    refusals,
    schedules,
    signin,
    states,
    tasks,
    words,
    workers,
)  # fmt: skip

__all__ = [
    "actions", "audit", "charts", "compare", "doctor", "errors", "frame", "job", "jobs", "operations", "overview",
    "quantities", "queues", "refusals", "schedules", "signin", "states", "tasks", "words", "workers",
]  # fmt: skip
