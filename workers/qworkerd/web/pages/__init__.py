"""The pages: one module for each noun, with a `blueprint` and, if the navigation has it, an `entry`."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

#: The modules, in the order of the navigation.
PAGES = (
    "overview",
    "queues",
    "jobs",
    "job",
    "compare",
    "errors",
    "workers",
    "schedules",
    "tasks",
    "operations",
    "audit",
    "doctor",
    "stats",
    "metrics",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the navigation."""

    #: The endpoint of the page, "queues.index".
    endpoint: str
    label: str
    #: The key that opens the page after "g".
    key: str


def modules() -> Iterator[Any]:
    """Yield the modules of the pages."""
    for name in PAGES:
        if find_spec(f"{__name__}.{name}"):
            yield import_module(f"{__name__}.{name}")
