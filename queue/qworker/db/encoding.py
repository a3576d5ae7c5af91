"""Texts that a database in another encoding than UTF8 can store: all other characters become their escapes."""

import codecs
import json
import re
from typing import Any

import psycopg

#: Encodings of PostgreSQL whose names Python knows by another.
_NAMES = {"KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_CN": "gb2312", "EUC_JIS_2004": "euc_jis_2004"}

_ESCAPED = re.compile(r"\\u(?!00[01])")


def storable(connection: psycopg.Connection[Any], text: str) -> str:
    """Return a JSON text in characters that the server can store.

    In UTF8 that is the text itself. Elsewhere a character that the server's encoding lacks is spelt out within its
    string, as a backslash and U0001f600: the server would refuse the statement, and with it the end of the job.
    """
    encoding = connection.pgconn.parameter_status(b"server_encoding")
    if encoding == b"UTF8" or encoding is None:
        return text
    if _ESCAPED.search(text):  # escapes hide characters from the look below, but not from the server
        text = json.dumps(json.loads(text), ensure_ascii=False)
    codec = _codec(encoding.decode())
    return text.encode(codec, "qworker.spell_out").decode(codec)


def _codec(encoding: str) -> str:
    name = _NAMES.get(encoding, encoding)
    if name.startswith("WIN"):
        name = f"cp{name[3:]}"
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101
    # The backslash is doubled, as the text is JSON.
    return "".join(f"\\\\U{ord(char):08x}" for char in error.object[error.start : error.end]), error.end


codecs.register_error("qworker.spell_out", _spell_out)
