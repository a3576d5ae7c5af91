"""Lighthouse on every page of a running `qworker web`: both themes, desktop and phone, a shop's data.

python -m tests.web.lighthouse

It needs npm, which brings Lighthouse into a folder of its own, and a browser. It takes about ten minutes. Accessibility
and best practices are properties of the pages and have to reach 100; performance depends on the machine, too, and is
only shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.web import create_app, everybody
from tests.database import Database
from tests.environment import ROOT
from tests.web import realistic
from tests.web.browser import executable
from tests.web.screenshots import pages

VERSION = "12.8.2"
SCRIPT = Path(__file__).with_suffix(".mjs")
FORMS, THEMES = ("desktop", "phone"), ("light", "dark")
#: Lighthouse scores no page that answers 404.
LEFT_OUT = {"missing"}


@dataclass(frozen=True)
class Result:
    """What Lighthouse says about one page."""

    name: str
    #: Scores by category, from 0 to 100.
    scores: dict[str, int]
    #: What takes points away, with the elements.
    faults: list[str]

    @property
    def passed(self) -> bool:
        """Whether what depends on the page alone has all points."""
        return all(score == 100 for category, score in self.scores.items() if category != "performance")


def installed(folder: Path) -> Path:
    """Bring Lighthouse into a folder, unless it is there."""
    stamp = folder / "node_modules" / "lighthouse" / "package.json"
    if not stamp.exists() or json.loads(stamp.read_text())["version"] != VERSION:
        npm = shutil.which("npm")
        if npm is None:
            sys.exit("npm is missing: as root, run: apt-get install npm")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        environ = os.environ | {"PUPPETEER_SKIP_DOWNLOAD": "1"}
        command = [npm, "install", "--no-audit", "--no-fund", "--silent", f"lighthouse@{VERSION}"]
        subprocess.run(command, cwd=folder, env=environ, check=True)
    return folder


@contextmanager
def dashboard() -> Iterator[tuple[str, dict[str, str]]]:
    """Start `qworker web` over a shop; yield its address and those of its pages."""
    with EmbeddedPostgres() as server:
        dsn = Database.create(server, "shop").dsn
        with psycopg.connect(dsn) as conn:
            migrate(conn)
        realistic.fill(dsn)
        app = create_app(dsn, access=everybody())
        addresses = {name: address for name, address in pages(app).items() if name not in LEFT_OUT}
        app.extensions["qworker_source"].close()
        process = subprocess.Popen(
            [sys.executable, "-m", "qworkerd", "--app", "tests.web.lighthouse_shop:app", "web", "--port", "0"],
            env=os.environ | {"QWORKER_DSN": dsn}, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1].rstrip("/"), addresses
        finally:
            process.terminate()
            process.wait()


def scored(folder: Path, form: str, theme: str, categories: str, pages: dict[str, str]) -> Iterator[Result]:
    """Run Lighthouse on pages in one browser."""
    node, chromium = shutil.which("node"), executable()
    if node is None or chromium is None:
        sys.exit("node or a browser is missing: as root, run: apt-get install nodejs chromium")
    command = [node, str(SCRIPT), str(folder), chromium, form, theme, categories, *pages.values()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for name, line in zip(pages, process.stdout, strict=True):
            answer = json.loads(line)
            scores = {category: round(100 * (score or 0)) for category, score in answer["scores"].items()}
            faults = [f"{f['id']}: {' '.join(f['where']) or f['title']}" for f in answer["faults"]]
            yield Result(name, scores, faults + ([answer["error"]] if answer["error"] else []))
    if process.returncode:
        sys.exit(f"Lighthouse ended with status {process.returncode}")


def main() -> int:
    """Print the scores; return 1 if a page lacks points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "lighthouse", help="where it is installed")
    parser.add_argument("--only", default="", help="only pages whose name contains this")
    parser.add_argument("--performance", action="store_true", help="show the scores of performance, too")
    options = parser.parse_args()
    folder = installed(options.folder.resolve())
    categories = "accessibility,best-practices" + (",performance" if options.performance else "")
    code = 0
    with dashboard() as (url, addresses):
        chosen = {name: url + address for name, address in addresses.items() if options.only in name}
        for form in FORMS:
            for theme in THEMES:
                for result in scored(folder, form, theme, categories, chosen):
                    numbers = "  ".join(f"{category} {score}" for category, score in result.scores.items())
                    print(f"{form:7}  {theme:5}  {result.name:13}  {numbers}", flush=True)  # noqa: T201
                    print("".join(f"    {fault}\n" for fault in result.faults), end="")  # noqa: T201
                    code |= not result.passed
    return code


if __name__ == "__main__":
    sys.exit(main())
