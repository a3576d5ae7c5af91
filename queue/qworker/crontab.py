"""Cron expressions: what crontab(5) reads differently from croniter, and what would silently mean something else."""

import re

#: The words that stand for an expression.
WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

#: The fields in order, and how many values each has.
_FIELDS = {"minute": 60, "hour": 24, "day of the month": 31, "month": 12, "day of the week": 7, "second": 60}
_UNIX, _WITH_SECONDS = 5, 6

#: R and H draw a number at random or by a hash: every node would keep another schedule.
_DRAWN = re.compile(r"(?:^|[\s,])[RH](?:$|[\s,/(-])", re.IGNORECASE)
_RANGE = re.compile(r"(?P<low>\w+)-(?P<high>\w+)(?:/\d+)?")
_STEP = re.compile(r".*/(\d+)")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: The numbers that names stand for, by field.
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "day of the week": {name: number for number, name in enumerate(_DAYS)},
}


def normalize(expression: str) -> str:
    """Return the expression as croniter has to be told it; raises ValueError with what is wrong.

    A range with equal ends is one value, as in crontab(5); croniter takes it for the whole field.
    """
    fields = expression.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        return _word(fields[0])
    if _DRAWN.search(expression) or len(fields) > _WITH_SECONDS:
        raise ValueError("five fields, or six with seconds last; neither years nor R nor H")
    if len(fields) < _UNIX:
        raise ValueError(
            f"{len(fields)} field{'' if len(fields) == 1 else 's'} of five: minute, hour, day of the month, month, day "
            "of the week; a sixth, for seconds, may follow"
        )
    return " ".join(_field(field, name, size) for field, (name, size) in zip(fields, _FIELDS.items(), strict=False))


def _word(word: str) -> str:
    if word.lower() == "@reboot":
        raise ValueError(
            f"{word} is not a time: any number of nodes start at any moment; enqueue the job where the release is "
            "deployed, with unique= if it must run once"
        )
    if word.lower() not in WORDS:
        raise ValueError(f"there is no {word}; the words are {', '.join(WORDS)}")
    return word


def _field(field: str, name: str, size: int) -> str:
    return ",".join(_part(part, name, size) for part in field.split(","))


def _part(part: str, name: str, size: int) -> str:
    step = _STEP.fullmatch(part)
    if step and int(step[1]) > size:
        raise ValueError(f"the step of {part!r} is longer than the field: {name} has {size} values")
    ends = _RANGE.fullmatch(part)
    return ends["low"] if ends and _equal(ends["low"], ends["high"], name) else part


def _equal(low: str, high: str, field: str) -> bool:
    first, last = _number(low, field), _number(high, field)
    # Sunday is 0 and 7; 0-7 is the whole week.
    return first is not None and (first == last or (field == "day of the week" and (first, last) == (7, 0)))


def _number(value: str, field: str) -> int | None:
    return int(value) if value.isdecimal() else _NAMES.get(field, {}).get(value.lower())
