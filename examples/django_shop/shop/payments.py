"""Stands for the client of a payment service. It charges every card but those whose token ends in `declined`."""

from decimal import Decimal


class CardDeclined(Exception):
    """The bank says no, and will say so again."""


class ServiceBusy(Exception):
    """Too many requests; a moment later there may be fewer."""


def charge(token: str, amount: Decimal, key: str) -> str:
    """Charge a card and return the id of the charge. A second request with the same key charges nothing."""
    if token.endswith("declined"):
        raise CardDeclined(f"the bank declines {amount}")
    return f"ch_{key}"
