"""The audit: who retried, cancelled, paused or edited what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint

from qworker.audit import AuditEntry
from qworkerd.web import texts
from qworkerd.web.ages import CURRENT
from qworkerd.web.answers import page
from qworkerd.web.exports import Paged
from qworkerd.web.filtering import shown
from qworkerd.web.pages import Entry
from qworkerd.web.view import View

blueprint = Blueprint("audit", __name__)
entry = Entry("audit.index", texts.audit.AUDIT, "a")

#: How many jobs, queues or schedules of an action are shown.
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AuditData:
    """What the page shows."""

    entries: Sequence[AuditEntry]
    #: What was asked for, by the names of the parameters.
    wanted: dict[str, str]
    #: The id below which the next page begins; None if this is the last one.
    next_below: int | None

    @property
    def filtered(self) -> bool:
        """Whether only some entries were asked for."""
        return any(self.wanted.values())

    def parts(self, target: object) -> list[tuple[str, list[str], int]]:
        """Return what an action was done to: the kind, the first few names, and how many more there are."""
        found = []
        for kind, value in target.items() if isinstance(target, dict) else ():
            values = value if isinstance(value, list) else [value]
            label = texts.audit.SINGULAR.get(kind, str(kind)) if len(values) == 1 else str(kind)
            found.append((label, [str(one) for one in values[:MAX_SHOWN]], max(0, len(values) - MAX_SHOWN)))
        return found


@page(
    blueprint, "/audit", title=texts.audit.AUDIT,
    table=Paged(lambda data: table(data.entries), lambda data: data.next_below),
)  # fmt: skip
def index(view: View) -> AuditData:
    """Return a page of actions, the newest first."""
    given = view.parameters
    size, below, job = given.page_size(), given.number("below"), given.number("job", least=1)
    texts = {name: given.text(name) for name in ("actor", "action", "queue", "schedule", "node")}
    since, until = given.time("since"), given.time("until")
    wanted: dict[str, Any] = {name: text or None for name, text in texts.items()}
    wanted |= {"job": job, "since": since, "until": until, "below": below}
    found = view.get(
        ("audit", size, *wanted.items()), CURRENT, lambda: view.source.admin.audit(limit=size + 1, **wanted)
    )  # fmt: skip
    asked = texts | {"job": "" if job is None else str(job), "since": given.text("since"), "until": given.text("until")}
    return AuditData(
        [allowed(view, entry) for entry in found[:size]], asked, found[size - 1].id if len(found) > size else None
    )


def allowed(view: View, entry: AuditEntry) -> AuditEntry:
    """Return an entry without values of arguments and messages in its filter if the user may not see them."""
    text = entry.target.get("filter")
    return entry if text is None else replace(entry, target={**entry.target, "filter": shown(view, str(text))})


def table(entries: Iterable[AuditEntry]) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """Return the actions for a spreadsheet."""
    head = ("id", "at", "actor", "role", "via", "address", "action", "target", "jobs", "note")
    return head, (tuple(getattr(entry, name) for name in head) for entry in entries)
