"""Pictures of every page, light and dark, on a desktop and a phone, with data and without.

python -m tests.web.screenshots FOLDER
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from flask import Flask

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.web import create_app, everybody
from tests.database import Database
from tests.web import realistic
from tests.web.browser import launched, serving
from tests.web.shop import shop

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
THEMES = ("light", "dark")
hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
part = f"from={(hour - timedelta(hours=9)).isoformat()}&to={(hour - timedelta(hours=5)).isoformat()}"
#: Addresses besides those of the navigation, with the name of the picture.
FURTHER = {
    "job": "/jobs/2001", "job-running": "/jobs/901", "compare": "/jobs/compare?a=2001&b=437",
    "errors-part": f"/errors?state=all&{part}", "queue": "/queue?name=integrations-with-a-rather-long-name",
    "error": "/errors/0000000000001093", "task": "/task?name=shop.mail.newsletter", "missing": "/nothing",
    "overview-30d": "/?period=30d", "overview-part": f"/?period=24h&{part}",
}  # fmt: skip


def pages(app: Flask) -> dict[str, str]:
    """Return the addresses of all pages of the navigation, and of those of single things that exist."""
    entries = app.jinja_env.globals["entries"]
    with app.test_request_context():
        found = {entry.endpoint.split(".")[0]: app.url_for(entry.endpoint) for entry in entries}  # type: ignore[attr-defined]
    return found | FURTHER


def live(dsn: str) -> None:
    """Let the nodes have sent a heartbeat."""
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE qworker.node SET heartbeat_at = now() - interval '0.4 s'")


def picture(browser: Any, url: str, addresses: dict[str, str], folder: Path, dsn: str) -> Iterator[str]:
    """Save the pictures of one server; yield what was odd."""
    for size, options in SIZES.items():
        for theme in THEMES:
            context = browser.new_context(base_url=url, color_scheme=theme, reduced_motion="reduce", **options)
            tab = context.new_page()
            for name, address in addresses.items():
                live(dsn)
                answer = tab.goto(address)
                width = tab.evaluate("document.documentElement.scrollWidth")
                if width > options["viewport"]["width"]:
                    yield f"{name} is {width} pixels wide on a {size}"
                if answer.status >= 400 and name not in FURTHER:
                    yield f"{address} answers with status {answer.status}"
                tab.screenshot(path=folder / f"{name}-{size}-{theme}.png", full_page=True)
            context.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="only pages whose name contains this")
    options = parser.parse_args()
    with EmbeddedPostgres() as server, launched() as browser:
        for kind in ("full", "empty"):
            dsn = Database.create(server, f"shop_{kind}").dsn
            with psycopg.connect(dsn) as conn:
                migrate(conn)
            if kind == "full":
                realistic.fill(dsn)
            app = create_app(shop(dsn), access=everybody("anna@shop.example"))
            folder = options.folder / kind
            folder.mkdir(parents=True, exist_ok=True)
            chosen = {name: address for name, address in pages(app).items() if (options.only or "") in name}
            with serving(app) as url:
                for odd in picture(browser, url, chosen, folder, dsn):
                    print(odd)  # noqa: T201


if __name__ == "__main__":
    main()
