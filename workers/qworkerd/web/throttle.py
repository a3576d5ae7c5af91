"""Slows down those who guess passwords: wrong ones are counted by user and address, by user, and by address."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

#: The time in which wrong passwords count (seconds).
PERIOD = 60.0
#: How many may be sent in it for a user from an address; for a user from all addresses; from an address for all users.
MAX_WRONG, MAX_OF_USER, MAX_OF_ADDRESS = 10, 50, 100
#: Maximum number of users, addresses and pairs that are remembered.
MAX_KNOWN = 10_000


class Throttle:
    """Decides whether a password is compared at all.

    A user who has signed in from an address before is counted only by user and address. So nobody locks this user out
    by the name alone, or by sending other names through the same proxy.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: OrderedDict[Hashable, list[float]] = OrderedDict()
        self._signed_in: OrderedDict[Hashable, None] = OrderedDict()

    def allows(self, user: str, address: str) -> bool:
        """Return whether a password may be compared."""
        pair = (user, address)
        with self._lock:
            if self._recent(pair) >= MAX_WRONG:
                return False
            others = (
                self._recent(("user", user, None)) < MAX_OF_USER
                and self._recent(("address", address, None)) < MAX_OF_ADDRESS
            )
            return others or pair in self._signed_in

    def wrong(self, user: str, address: str) -> None:
        """Count a wrong password."""
        with self._lock:
            now = self._clock()
            for key, most in (
                ((user, address), MAX_WRONG), (("user", user, None), MAX_OF_USER),
                (("address", address, None), MAX_OF_ADDRESS),
            ):  # fmt: skip
                self._wrong[key] = [*self._wrong.pop(key, ()), now][-most:]
                _bound(self._wrong)

    def right(self, user: str, address: str) -> None:
        """Remember that a user has signed in from an address."""
        with self._lock:
            self._signed_in.pop((user, address), None)
            self._signed_in[user, address] = None
            _bound(self._signed_in)

    def _recent(self, key: Hashable) -> int:
        since = self._clock() - PERIOD
        return sum(at > since for at in self._wrong.get(key, ()))


def _bound(known: OrderedDict[Hashable, Any]) -> None:
    while len(known) > MAX_KNOWN:
        known.popitem(last=False)
