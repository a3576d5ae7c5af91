"""What users do to jobs: the names of the actions, what they have done, and which jobs they concern."""

from collections.abc import Mapping

from qworkerd.web.texts.quantities import jobs

RETRY, CANCEL, DISCARD = "Retry", "Cancel", "Discard"
RUN_A_COPY, RUN_NOW, MOVE = "Run a copy", "Run now", "Move"
WHY = "Why, for the audit"
#: The names of the actions.
VERBS: Mapping[str, str] = {
    "retry": RETRY, "cancel": CANCEL, "discard": DISCARD, "again": RUN_A_COPY, "run_now": RUN_NOW, "move": MOVE,
}  # fmt: skip
#: What has happened to jobs.
_DONE: Mapping[str, str] = {
    "retry": "retried", "cancel": "cancelled, or asked to stop", "discard": "discarded", "again": "enqueued again",
    "run_now": "made available", "move": "moved",
}  # fmt: skip
#: Which jobs an action concerns.
RULES: Mapping[str, str] = {
    "retry": "only failed jobs can be retried",
    "cancel": "only jobs that have not ended can be cancelled",
    "discard": "only failed jobs can be discarded",
    "again": "only jobs that have ended or failed can be run again, and no failure hooks",
    "run_now": "only scheduled jobs can be made available",
    "move": "only jobs that wait or have failed can be moved, and not to where they are",
}


def done(action: str, changed: int, asked: int) -> str:
    """Say what an action has done to the jobs for which it was asked."""
    if changed == asked:
        return f"{jobs(changed)} {_DONE[action]}."
    return f"{jobs(changed)} of {asked:,} {_DONE[action]}: {RULES[action]}."


def done_before(what: str, action: str, number: int | None, time: str) -> str:
    """Say what a request has done that was sent before."""
    numbered = "" if number is None else f" with {jobs(number)}"
    return f"This {what} was sent before. It has done {action}{numbered} at {time} UTC."


#: What was sent: by a program, or by a page.
REQUEST, FORM = "request", "form"
