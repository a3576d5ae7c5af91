"""The page of the doctor."""

DOCTOR = "Doctor"
NOTHING_WAS_FOUND = "Nothing was found."
NOT_LOOKED_AT = "Not looked at"
NOT_YET = "The checks are being made."

SOON = "Their findings appear here in a few seconds; reload the page if they do not."
#: What a severity means.
SEVERITIES = {
    "stops": "stops work, or loses it, until something is done",
    "warning": "will stop or slow down work if nothing is done",
    "hint": "costs something, or is probably not intended",
}
_OF_WHAT = "checks of the database, the queues and the nodes"


def all_made(checks: int) -> str:
    """Say what was checked without any finding."""
    return f"{checks:,} {_OF_WHAT} were made in the last minute."


def found(findings: int, checks: int) -> str:
    """Say how much was found."""
    number = f"{findings:,} {'finding' if findings == 1 else 'findings'}"
    return f"{number} by {checks:,} {_OF_WHAT}. The checks are made again once a minute."


def remedy_of(check: str) -> str:
    """Name the commands against a finding."""
    return f"Remedy of {check}"


def skipped(checks: int) -> str:
    """Say how many checks were not made."""
    return f"{checks:,} {'check was' if checks == 1 else 'checks were'} not made, or only in part"
