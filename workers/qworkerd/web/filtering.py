"""The filter of a page: read from the address, limited to what the user may see, and what can complete it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from qworker.filters import KEYS, MAX_LENGTH, Filter, InvalidFilter, Term, Value, parse
from qworker.filters.keys import ARGS
from qworker.filters.offers import Offer, read_sample
from qworker.operations import Operation
from qworker.queues import QueuePause
from qworker.statistics import Statistics
from qworker.status import NodeStatus
from qworkerd.log.pairs import shown_offers
from qworkerd.web import texts
from qworkerd.web.access import PAYLOAD
from qworkerd.web.ages import LIVE, NAMES
from qworkerd.web.view import View

#: Values of a key that are offered.
MAX_VALUES = 500
#: The keys that compare what the right `payload` protects.
PROTECTED = frozenset({ARGS, "message"})
#: Stands for what the user may not see.
HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class FilterError:
    """What is wrong with a filter, and where."""

    message: str
    #: The text before the error, and from there on.
    before: str
    rest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter of a request."""

    text: str
    #: None if the text is not a filter.
    filter: Filter | None
    error: FilterError | None = None

    @property
    def unindexed(self) -> list[str]:
        """The terms that no index serves."""
        return [] if self.filter is None else [str(term) for term in self.filter.unindexed]

    @property
    def states(self) -> list[str]:
        """The states that the filter names, if it names any."""
        return [] if self.filter is None else list(self.filter.exact("state") or ())


def wanted(view: View, text: str | None = None) -> Wanted:
    """Return the filter of the parameter `q`, or of a text."""
    text = view.parameters.filter() if text is None else text
    try:
        found = parse(text)
        if not view.may(PAYLOAD):
            _refuse(found, text)
    except InvalidFilter as error:
        at = error.position
        return Wanted(text, None, FilterError(str(error), text[:at], text[at:]))
    return Wanted(text, found)


def _refuse(found: Filter, text: str) -> None:
    """Refuse terms that would tell what the user may not see."""
    for term in found.terms:
        if term.key in PROTECTED:
            raise InvalidFilter(texts.refusals.no_right_to_search(term.key), text, term.position)


def shown(view: View, text: str) -> str:
    """Return the text of a filter that another user has written, without values that this one may not see."""
    if view.may(PAYLOAD):
        return text
    try:
        terms = parse(text).terms
    except InvalidFilter:
        return HIDDEN
    if not any(term.key in PROTECTED for term in terms):
        return text
    hidden = (Value(HIDDEN, text=HIDDEN),)
    return " ".join(str(replace(term, values=hidden) if term.key in PROTECTED else term) for term in terms)


def allowed_operation(view: View, operation: Operation) -> Operation:
    """Return an operation without values of arguments and messages if the user may not see them."""
    if view.may(PAYLOAD):
        return operation
    error = None if operation.error is None else texts.refusals.NO_RIGHT_TO_ANSWER
    return replace(operation, filter=shown(view, operation.filter), error=error)


def known_keys(view: View) -> frozenset[str]:
    """Return the keys by which the user may search."""
    return frozenset(KEYS) - (frozenset() if view.may(PAYLOAD) else PROTECTED)


def completions(view: View) -> dict[str, Any]:
    """Return the keys of filters and their values, from small tables; jobs are never searched for them."""
    schema, admin = view.source.schema, view.source.admin
    names = view.share("series", NAMES, Statistics(schema).names)
    nodes = view.get("nodes", NAMES, admin.nodes)
    groups = view.get("completions.errors", NAMES, lambda: admin.error_groups(limit=MAX_VALUES))
    schedules = view.get("schedules", NAMES, admin.schedules)
    values = {
        "queue": _sorted([queue for queue, _ in names] + [queue for node in nodes for queue in node.queues]),
        "task": _sorted([task for _, task in names] + ([] if view.app is None else list(view.app.tasks))),
        "node": _sorted(node.name for node in nodes), "cron": _sorted(schedule.name for schedule in schedules),
        "error": _sorted(group.type for group in groups),
    }  # fmt: skip
    return {
        "keys": [
            {"name": key.name, "help": key.help, "example": key.example,
             "values": list(key.choices) or values.get(key.name, [])}
            for key in KEYS.values() if key.name in known_keys(view)
        ]
    }  # fmt: skip


def argument_offers(view: View) -> list[Offer]:
    """Return what can complete the parameter `word`, a term that compares arguments, beside the filter `rest`.

    Names and values are those of the newest jobs that match the rest, as far as they are found in a moment. Nothing is
    offered that the user may not see, or that pages mask.
    """
    word, rest = view.parameters.text("word", longest=MAX_LENGTH), view.parameters.filter("rest")
    if not view.may(PAYLOAD):
        return []
    try:
        wanted = parse(rest)
    except InvalidFilter:
        return []
    found: list[Any] = view.get(
        ("completions.arguments", str(wanted)), NAMES, lambda: read_sample(view.source.search.arguments(wanted)),
        large=True,
    )  # fmt: skip
    return shown_offers(word, found)


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(set(names))[:MAX_VALUES]


def nodes_of(view: View) -> list[NodeStatus]:
    """Return the nodes as pages need them that show what runs."""
    return view.get("nodes", LIVE, view.source.admin.nodes)


def pauses_of(view: View) -> list[QueuePause]:
    """Return the queues that are paused."""
    return view.get("paused", LIVE, view.source.admin.paused)


def with_term(text: str, key: str, value: str) -> str:
    """Return the text of a filter that also requires a value, for links."""
    term = str(Term(key, (Value(value, text=value),)))
    longer = f"{text} {term}".strip()
    return text if f" {term} " in f" {text} " or len(longer) > MAX_LENGTH else longer
