"""What threads send to the screen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textual.message import Message

from qworkerd.top.actions import Outcome
from qworkerd.top.facts import Fact
from qworkerd.top.reading import Frame, Query


@dataclass
class Received(Message):
    """A frame was read, or could not be."""

    query: Query
    found: Frame | BaseException


@dataclass
class Finished(Message):
    """An action has ended."""

    outcome: Outcome


@dataclass
class Filtered(Message):
    """The jobs of a group of errors are wanted."""

    text: str


@dataclass
class Opened(Message):
    """Details were read."""

    row: Any
    title: str
    facts: Sequence[Fact]
    #: Whether they are to replace those of the same row that are shown, if they still are.
    renewed: bool = False
