"""Normalizes cron expressions where crontab(5) and croniter differ, and rejects those that croniter misreads."""

import re

#: The nicknames of expressions.
NICKNAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

#: The fields in order, with the number of values of each.
_FIELDS = {"minute": 60, "hour": 24, "day of the month": 31, "month": 12, "day of the week": 7, "second": 60}
_UNIX, _WITH_SECONDS = 5, 6

#: R and H stand for a random or hashed value; each node would have a different schedule.
_RANDOM = re.compile(r"(?:^|[\s,])[RH](?:$|[\s,/(-])", re.IGNORECASE)
_RANGE = re.compile(r"(?P<low>\w+)-(?P<high>\w+)(?:/\d+)?")
_STEP = re.compile(r".*/(\d+)")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: The values of the names, by field.
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "day of the week": {name: number for number, name in enumerate(_DAYS)},
}


def normalize(expression: str) -> str:
    """Return the expression in the form that croniter needs; raises ValueError if it is invalid.

    As in crontab(5), a range with equal ends is one value; croniter reads it as the whole field.
    """
    fields = expression.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        return _nickname(fields[0])
    if _RANDOM.search(expression) or len(fields) > _WITH_SECONDS:
        raise ValueError("expected five fields, or six with seconds last; years, R and H are not supported")
    if len(fields) < _UNIX:
        raise ValueError(
            f"expected five fields, got {len(fields)}: minute, hour, day of the month, month, day of the week; a "
            "sixth, for seconds, may follow"
        )
    return " ".join(_field(field, name, size) for field, (name, size) in zip(fields, _FIELDS.items(), strict=False))


def _nickname(word: str) -> str:
    if word.lower() == "@reboot":
        raise ValueError(
            f"{word} is not supported because nodes start at any time: enqueue the job from your deployment instead, "
            "with unique= if it must run once"
        )
    if word.lower() not in NICKNAMES:
        raise ValueError(f"unknown nickname {word}; expected one of {', '.join(NICKNAMES)}")
    return word


def _field(field: str, name: str, size: int) -> str:
    return ",".join(_part(part, name, size) for part in field.split(","))


def _part(part: str, name: str, size: int) -> str:
    step = _STEP.fullmatch(part)
    if step and int(step[1]) > size:
        raise ValueError(f"the step of {part!r} exceeds its field: {name} has {size} values")
    ends = _RANGE.fullmatch(part)
    return ends["low"] if ends and _equal(ends["low"], ends["high"], name) else part


def _equal(low: str, high: str, field: str) -> bool:
    first, last = _number(low, field), _number(high, field)
    # Sunday is 0 and 7; 0-7 is the whole week.
    return first is not None and (first == last or (field == "day of the week" and (first, last) == (7, 0)))


def _number(value: str, field: str) -> int | None:
    return int(value) if value.isdecimal() else _NAMES.get(field, {}).get(value.lower())
