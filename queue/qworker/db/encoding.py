"""Replaces characters that the encoding of the database cannot store by escapes."""

import codecs
import json
import re
from typing import Any

import psycopg

#: Encodings of PostgreSQL that have another name in Python.
_NAMES = {"KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_CN": "gb2312", "EUC_JIS_2004": "euc_jis_2004"}

_ESCAPED = re.compile(r"\\u(?!00[01])")


def escape_unstorable(connection: psycopg.Connection[Any], text: str) -> str:
    """Return JSON text that the server can store.

    If the server's encoding is UTF8, that is the text itself. Otherwise a character that the encoding lacks is written
    as a backslash and U0001f600 inside its string. Without this the server would reject the statement and the outcome
    of the job could not be stored.
    """
    encoding = connection.pgconn.parameter_status(b"server_encoding")
    if encoding == b"UTF8" or encoding is None:
        return text
    if _ESCAPED.search(text):  # the server decodes JSON escapes, so the codec below must see the characters
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
    # The backslash is doubled because the text is JSON.
    return "".join(f"\\\\U{ord(char):08x}" for char in error.object[error.start : error.end]), error.end


codecs.register_error("qworker.spell_out", _spell_out)
