"""Who a user is, and what the user may do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: Everything.
ALL = frozenset({"*"})
#: The right to see pages; the right to see arguments, results, errors and logs, which may hold personal data.
VIEW, PAYLOAD = "view", "payload"
#: Everything that changes nothing.
READ = frozenset({VIEW, PAYLOAD})


@dataclass(frozen=True, slots=True)
class Access:
    """A user of the dashboard."""

    #: The name that the audit stores; None stands for user@host of the process.
    user: str | None
    #: Names of actions as in the audit, such as "job.retry"; "job" stands for all that begin with "job."; ALL; READ.
    actions: frozenset[str] = READ
    #: Whether the client has authenticated itself by a bearer token, which no browser adds by itself.
    by_token: bool = False

    def may(self, action: str) -> bool:
        """Return whether the user may see or do something."""
        return not {"*", action, action.partition(".")[0]}.isdisjoint(self.actions)

    def without_actions(self) -> "Access":
        """Return the same user with the rights to see alone."""
        return replace(self, actions=frozenset(right for right in READ if self.may(right)))


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a user signs in."""

    location: str


#: Called with the WSGI environment of each request. Returns the user, where to sign in, or None to refuse.
Authorize = Callable[[Mapping[str, Any]], Access | Redirect | None]


def rights_of(text: str) -> frozenset[str]:
    """Return rights from their names: "all", "read", or actions such as "job.retry,queue"; raises ValueError."""
    found: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == "all":
            found |= ALL
        elif word == "read":
            found |= READ
        elif word.replace(".", "").replace("_", "").isalpha() and word.isascii():
            found |= {word} | READ
        else:
            raise ValueError(f"{word!r} is not a right: use all, read, or actions such as job.retry or queue")
    return frozenset(found)


class FirstOf:
    """Asks several functions in turn, until one accepts the request or says where to sign in."""

    def __init__(self, *functions: Authorize) -> None:
        #: The functions. Those with pages of their own have a `blueprint`.
        self.functions = functions

    def __call__(self, environ: Mapping[str, Any]) -> Access | Redirect | None:
        """Return the first answer."""
        found = None
        for function in self.functions:
            found = function(environ)
            if found is not None:
                break
        return found


def everybody(user: str | None = None, actions: frozenset[str] = ALL) -> Authorize:
    """Return a function that accepts every request, for servers that only their own machine reaches."""
    access = Access(user, actions)
    return lambda _environ: access
