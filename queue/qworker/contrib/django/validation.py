"""Validates QWORKER and TASKS in Django's settings: names and types, with the way out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qworker.db.statements import qualify
from qworker.errors import ConfigurationError
from qworker.nearest import instead

#: The entries of QWORKER that concern the application; all others are settings of its nodes, in upper case.
APPLICATION = ("DATABASE", "SCHEMA", "MODULES")
#: The OPTIONS of a backend in TASKS.
BACKEND_OPTIONS = ("database", "schema", "queue_prefix", "timeout", "max_attempts", "backoff")
#: Settings of nodes that QWORKER cannot contain, and what replaces them.
REPLACED = {
    "APP": "A node finds the application of the project by itself.",
    "DSN": "Set QWORKER['DATABASE'] to an alias in DATABASES: jobs are stored in one of Django's databases.",
}
#: How much of a value is shown (characters).
MAX_SHOWN = 100
#: Settings whose values are not shown.
SECRET = ("DSN", "DIRECT_DSN")

#: Returns the value of a node's setting, or raises ValueError with what is allowed.
Reader = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Problem:
    """A wrong entry."""

    #: What is wrong, with the value.
    message: str
    #: What to write instead.
    hint: str

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"


def of_project(found: Any, readers: Mapping[str, Reader] | None = None) -> Iterator[Problem]:
    """Yield what is wrong with QWORKER; the settings of nodes are validated if their readers are given, by name."""
    if not isinstance(found, dict):
        yield Problem(f"QWORKER is {_described(found)}.", "Write a dict, as in QWORKER = {'QUEUES': ['default']}.")
        return
    for name, value in found.items():
        upper = str(name).upper()
        if name in APPLICATION:
            yield from _application(f"QWORKER[{name!r}]", name, value)
        elif upper in APPLICATION:
            yield Problem(f"QWORKER has the key {name!r}.", f"Its keys are in upper case: write {upper!r}.")
        elif readers is not None:
            yield from _node_setting(name, upper, value, readers)


def of_backend(alias: str, declared: Any, defaults: Callable[..., object]) -> Iterator[Problem]:
    """Yield what is wrong with an entry of TASKS; defaults: raises TypeError or ValueError for options of tasks."""
    where = f"TASKS[{alias!r}]"
    queues, options = declared.get("QUEUES"), declared.get("OPTIONS", {})
    if queues is not None and not _strings(queues):
        yield Problem(
            f"{where}['QUEUES'] is {_described(queues)}.", "Write a list of names, as in ['default', 'mail']."
        )
    for name in declared:
        if name != "OPTIONS" and str(name).lower() in BACKEND_OPTIONS:
            yield Problem(f"{where} has the key {name!r}.", f"Write it into its OPTIONS, as {str(name).lower()!r}.")
    yield from of_options(alias, options, defaults)


def of_options(alias: str, options: Any, defaults: Callable[..., object]) -> Iterator[Problem]:
    """Yield what is wrong with the OPTIONS of a backend."""
    where = f"TASKS[{alias!r}]['OPTIONS']"
    if not isinstance(options, dict):
        yield Problem(f"{where} is {_described(options)}.", "Write a dict, as in {'max_attempts': 3}.")
        return
    for name, value in options.items():
        entry = f"{where}[{name!r}]"
        if name not in BACKEND_OPTIONS:
            yield Problem(f"{where} has the key {name!r}.", _instead(str(name).lower(), BACKEND_OPTIONS))
        elif name == "queue_prefix":
            if not isinstance(value, str) or not (value.isprintable() and "," not in value):
                yield Problem(f"{entry} is {_described(value)}.", "Write a string without commas, as in 'reports:'.")
        elif name in ("database", "schema"):
            yield from _application(entry, name.upper(), value)
        else:
            try:
                defaults(**{name: value})
            except (TypeError, ValueError) as error:
                yield Problem(f"{entry} is {_described(value)}.", f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _application(entry: str, name: str, value: Any) -> Iterator[Problem]:
    if name == "DATABASE" and not isinstance(value, str):
        yield Problem(f"{entry} is {_described(value)}.", "Write an alias in DATABASES, as in 'default'.")
    if name == "MODULES" and not _strings(value):
        example = [value] if isinstance(value, str) else ["shop.reports"]
        yield Problem(f"{entry} is {_described(value)}.", f"Write a list of names of modules, as in {example}.")
    if name == "SCHEMA":
        try:
            qualify("", value if isinstance(value, str) else "")
        except ConfigurationError:
            hint = "Write the name of a schema: at most 48 lower-case letters, digits and _."
            yield Problem(f"{entry} is {_described(value)}.", hint)


def _node_setting(name: Any, upper: str, value: Any, readers: Mapping[str, Reader]) -> Iterator[Problem]:
    if upper in REPLACED:
        yield Problem(f"QWORKER has the key {name!r}.", REPLACED[upper])
    elif upper not in readers:
        yield Problem(f"QWORKER has the key {name!r}.", _instead(upper, (*APPLICATION, *readers.keys() - REPLACED)))
    elif name != upper:
        yield Problem(f"QWORKER has the key {name!r}.", f"Its keys are in upper case: write {upper!r}.")
    else:
        try:
            readers[name](value)
        except ValueError as error:
            shown = "***" if name in SECRET else _described(value)
            yield Problem(f"QWORKER[{name!r}] is {shown}.", f"It {error}.")


def _instead(name: str, known: Iterable[str]) -> str:
    hint = instead(name, sorted(known))
    return hint[0].upper() + hint[1:] + ("" if hint.endswith("?") else ".")


def _strings(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(part, str) for part in value)


def _described(value: Any) -> str:
    """Return a value, and its type if that is what is wrong."""
    shown = repr(value)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    return f"{shown} ({type(value).__name__})"
