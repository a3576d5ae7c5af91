"""The argument FILTER of commands: words as a shell passes them, and errors that point at the word."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from qworker.filters import KEYS, Filter, InvalidFilter, parse
from qworker.filters.model import quoted
from qworker.filters.values import WITH_COMPARISON
from qworkerd.cli.completion import complete_filter

F = TypeVar("F", bound=Callable[..., Any])

#: Width of the line above the caret of an error.
POINTER_WIDTH = 76
#: Stands before a negated term while click parses the words: -by:hook is not the options -b, -y and so on.
_ESCAPE = "\0"
_NEGATED = re.compile(r"-[A-Za-z_]{2,}[.:]")
#: A word that a shell has stripped of its quotes: message:connection refused.
_STRIPPED = re.compile(r"(-?[A-Za-z_]+(?:\.[^\s:]*)?:)([^\"]*\s[^\"]*)")
#: The end of a term whose value is missing.
_WITHOUT_VALUE = re.compile(r"(?:^|\s)-?([A-Za-z_]+)(?:\.\S*)?:$")
_TERM = re.compile(rf"\s-?(?:{'|'.join(KEYS)})[.:]", re.IGNORECASE)


class FilterCommand(click.Command):
    """A command whose arguments are a filter, in which terms may be negated by a minus."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; negated terms are not options, and a key that is written as an option is explained."""
        words = [f"{_ESCAPE}{word}" if _NEGATED.match(word) else word for word in args]
        try:
            return super().parse_args(ctx, words)
        except click.NoSuchOption as error:
            key = KEYS.get(error.option_name.lstrip("-"))
            if key is None:
                raise
            raise click.UsageError(f"unknown option {error.option_name}; write {key.example}", ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete an option, or a negated term."""
        if _NEGATED.match(incomplete):
            return complete_filter(ctx, self.params[0], incomplete)
        return super().shell_complete(ctx, incomplete)


def filter_argument(metavar: str = "[FILTER]...") -> Callable[[F], F]:
    """Add the argument `words`."""
    return click.argument("words", metavar=metavar, nargs=-1, shell_complete=complete_filter)


def filter_of(words: Sequence[str]) -> Filter:
    """Return the filter that words of the command line describe; raises a UsageError with a caret below the error."""
    text = " ".join(map(_requoted, words))
    try:
        return parse(text)
    except InvalidFilter as error:
        raise usage_error(error, hint=_redirected(error)) from None


def usage_error(error: InvalidFilter, hint: str = "") -> click.UsageError:
    """Return the error of a command, with a caret below the error."""
    pointer = "\n".join(f"  {line}" for line in error.pointer(POINTER_WIDTH).splitlines())
    return click.UsageError(f"{error}{hint}\n{pointer}")


def _redirected(error: InvalidFilter) -> str:
    """Return a hint if a shell has probably taken a comparison for a redirection: what is left of age:>1h is age: ."""
    found = _WITHOUT_VALUE.search(error.text[: error.position])
    key = KEYS.get(found[1].lower()) if found else None
    if key is None or key.kind not in WITH_COMPARISON:
        return ""
    return f"; for a shell, put it in quotes: '{key.example.split()[-1]}'"


def ids_of(words: Sequence[str]) -> list[int] | None:
    """Return the ids if all words are numbers; None if they are a filter."""
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        return None
    for word in words:
        if not 1 <= int(word[:20]) < 2**63:
            raise click.UsageError(f"{word[:40]} is not the id of a job: pass a number as shown by `jobs list`")
    return [int(word) for word in words]


def _requoted(word: str) -> str:
    word = word.removeprefix(_ESCAPE)
    found = _STRIPPED.fullmatch(word)
    return f"{found[1]}{quoted(found[2])}" if found and not _TERM.search(word) else word
