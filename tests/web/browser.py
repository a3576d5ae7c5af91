"""A real browser, and a server thread for it."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

#: Where Debian's package `chromium` and others install the program.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """Return the path of the browser; None if there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve a WSGI application on a port of its own; yield its address without the final slash."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def launched() -> Iterator[Any]:
    """Start the browser, and end it with the block."""
    from playwright.sync_api import sync_playwright

    # It refuses to run as root in its sandbox, and in containers there is often neither /dev/shm nor a GPU.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()
