"""All checks, in the order in which they run and are documented."""

from collections.abc import Iterable

from qworkerd.doctor import durability, failures, horizon, nodes, queues, schema, sessions, storage, vacuum
from qworkerd.doctor.check import Check

CHECKS: tuple[Check, ...] = (
    *schema.CHECKS,
    *durability.CHECKS,
    *sessions.CHECKS,
    *queues.CHECKS,
    *nodes.CHECKS,
    *failures.CHECKS,
    *horizon.CHECKS,
    *vacuum.CHECKS,
    *storage.CHECKS,
)

#: The ids of all checks; some have a variant for each version of the server.
IDS: tuple[str, ...] = tuple(dict.fromkeys(check.id for check in CHECKS))


def select(only: Iterable[str] = (), *, deep: bool = False) -> list[Check]:
    """Return the checks with these ids, or all; those that read much only if `deep` is set or they are named."""
    wanted = set(only)
    return [check for check in CHECKS if check.id in wanted or (not wanted and (deep or not check.deep))]
