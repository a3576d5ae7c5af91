"""The files that pages load: a fixed table, each with the hash of its content in its address."""

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

#: Names in addresses, with the file below `static/` and the type.
FILES = {
    "qworker.css": ("qworker.css", "text/css"),
    "qworker.js": ("qworker.js", "text/javascript"),
    "narrow.css": ("narrow.css", "text/css"),
    "print.css": ("print.css", "text/css"),
    "details.css": ("details.css", "text/css"),
    "charts.css": ("charts.css", "text/css"),
    "charts.js": ("charts.js", "text/javascript"),
    "copy.js": ("copy.js", "text/javascript"),
    "filter.js": ("filter.js", "text/javascript"),
    "jobs.css": ("jobs.css", "text/css"),
    "htmx.js": ("vendor/htmx-4.0.1/htmx.min.js", "text/javascript"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    body: bytes
    compressed: bytes
    kind: str
    #: The first digits of the SHA-256 of the content.
    version: str


def asset(name: str) -> Asset | None:
    """Return the file of this name; None if there is none."""
    return _read(name) if name in FILES else None


# Names that clients send must not get here: each would be remembered.
@cache
def _read(name: str) -> Asset:
    path, kind = FILES[name]
    body = files("qworkerd.web").joinpath("static", *path.split("/")).read_bytes()
    return Asset(body, gzip.compress(body, 9, mtime=0), kind, sha256(body).hexdigest()[:16])
