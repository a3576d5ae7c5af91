"""The dashboard in a language that nobody speaks: every letter of its texts is another one.

python -m tests.web.translated DSN writes its pages as JSON: the HTML of each by its address.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

from qworkerd.web import texts

#: Latin letters that are not of the texts: our name, the user, a key, and a unit.
UNTRANSLATED = {"qworker", "anna", "Enter", "ms"}
#: What comes from the client package: keys of filters with their help, findings of the doctor.
FOREIGN = re.compile(
    r'<dl><dt>.*?</dl>|<section class="(?:notice|card finding)[^>]*>.*?</section>|<option value=.*?>'
    r"|<script.*?</script>",
    re.DOTALL,
)
ADDRESSES = (
    "/", "/?period=30d", "/?period=x", "/?region=x", "/queues", "/queues?find=x", "/queue?name=x", "/queue", "/jobs",
    "/jobs?order=oldest", "/jobs?q=state:failed", "/jobs/all", "/jobs/all?action=move", "/errors",
    "/errors?state=all", "/errors?state=muted", "/workers", "/schedules",
    "/schedules?find=x", "/tasks", "/task?name=x", "/operations", "/operations?running=1", "/operations/7", "/audit",
    "/audit?actor=x", "/doctor", "/nothing", "/jobs?size=7", "/jobs?below=x",
)  # fmt: skip


def names(module: ModuleType) -> Iterator[str]:
    """Yield the names of the texts of a module."""
    for name, value in vars(module).items():
        own = isinstance(value, (str, tuple, dict)) or getattr(value, "__module__", "") == module.__name__
        if own and not name.startswith("_"):
            yield name


def foreign(text: str) -> str:
    """Return a text in full-width letters; {places} and %formats stay."""
    parts = re.split(r"(\{[^{}]*\}|%\w)", text)
    return "".join(
        part if number % 2 else re.sub("[A-Za-z]", lambda letter: chr(ord(letter[0]) + 0xFEE0), part)
        for number, part in enumerate(parts)
    )


def translate(value: Any) -> Any:
    """Translate a text, or what contains or returns texts."""
    if isinstance(value, str):
        return foreign(value)
    if isinstance(value, dict):
        return {name: translate(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(translate, value))
    return _returning(value) if isinstance(value, FunctionType) else value


def _returning(function: Callable[..., str]) -> Callable[..., str]:
    @wraps(function)
    def call(*parts: Any, **named: Any) -> str:
        return foreign(function(*parts, **named))

    return call


def without_foreign(html: str) -> str:
    """Return a page without what is not said by the dashboard itself."""
    return FOREIGN.sub("", html)


def main() -> None:
    """Translate the texts, and write the pages of an empty database."""
    for name in texts.__all__:
        module = getattr(texts, name)
        for one in list(names(module)):
            setattr(module, one, translate(getattr(module, one)))
    from qworkerd.web import create_app, everybody

    app = create_app(sys.argv[1], access=everybody("anna"))
    client = app.test_client()
    json.dump({address: client.get(address).text for address in ADDRESSES}, sys.stdout)
    app.extensions["qworker_source"].close()


if __name__ == "__main__":
    main()
