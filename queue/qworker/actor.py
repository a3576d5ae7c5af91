"""Who takes an action by hand: stored in the audit with what was done."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

#: Maximum number of characters of an actor or address, and of a note. Longer ones are cut: they must not prevent the
#: action.
MAX_ACTOR, MAX_NOTE = 200, 1000


class Via(StrEnum):
    """Where an action is taken."""

    #: Code of an application.
    API = "api"
    CLI = "cli"
    WEB = "web"
    TOP = "top"
    DJANGO = "django"
    #: An operation over many jobs, which a node carries out for the actor.
    OPERATION = "operation"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where."""

    #: The signed-in user if the caller names one, or else user@host of the process.
    name: str
    via: Via = Via.API
    #: The address of the user, as a web server knows it.
    address: str | None = None
    #: Why, in the user's words.
    note: str | None = None
    #: Names the request, so that it acts only once: see `acting_as`.
    request: str | None = None

    @property
    def parameters(self) -> dict[str, str | None]:
        """The parameters of statements that contain the fragment `audit`."""
        return {
            "actor": _storable(self.name, MAX_ACTOR) or "?",
            "via": self.via.value,
            "address": None if self.address is None else _storable(self.address, MAX_ACTOR),
            "note": None if self.note is None else _storable(self.note, MAX_NOTE),
            "request": self.request,
        }


_acting: ContextVar[Actor | None] = ContextVar("qworker_acting", default=None)


@contextmanager
def acting_as(
    name: str | None = None, *, via: Via | str = Via.API, address: str | None = None, note: str | None = None,
    request: str | None = None,
) -> Iterator[Actor]:  # fmt: skip
    """Record the actions that are taken in a block as those of a user.

    Each retry, cancellation, pause and so on is stored in the audit by the statement that does it. Without this block
    its actor is user@host of the process. The server adds the role of the session, which the caller cannot choose.
    name: None for user@host. via: api, cli, web, top, django or operation. address: of the user. note: why.

    request: from `request_name`. If the request has acted before, UniqueViolation of the index audit_request is raised,
    and nothing is done. A block with a request takes one action.
    """
    actor = Actor(name=name or whoami(), via=Via(via), address=address, note=note, request=request)
    token = _acting.set(actor)
    try:
        yield actor
    finally:
        _acting.reset(token)


def request_name(*name: object, wants: object = ()) -> str:
    """Return a string for `acting_as`. name: what is the same if a request is sent again. wants: what it asks for."""
    return "".join(sha256(repr(part).encode(errors="backslashreplace")).hexdigest()[:32] for part in (name, wants))


def current_actor() -> Actor:
    """Return who acts in this context."""
    return _acting.get() or Actor(whoami())


def whoami() -> str:
    """Return user@host of the process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that it does not know
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _storable(text: str, size: int) -> str:
    """Return a string that the database accepts: without NUL and half surrogate pairs, and not too long."""
    return text.replace("\0", "").encode(errors="backslashreplace").decode()[:size]
