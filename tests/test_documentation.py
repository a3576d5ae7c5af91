"""The code of README and documentation does what stands beside it: files are written, commands typed, scripts run."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from psycopg.conninfo import conninfo_to_dict

from qworkerd.cli.django import qworker as django_group
from qworkerd.cli.main import main
from qworkerd.scheduler.watermarks import releases, scrub, settled
from qworkerd.worker import cursors
from tests.database import Database
from tests.project import Project

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Those without code to run as well.
ALL_PAGES = sorted({*PAGES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})
SHOP = ROOT / "examples" / "django_orders"
RUN = [page for page in PAGES if "```python" in page.read_text()]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w[\w/]*\.(?:py|ini))\n")
_LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")

#: The names of all files and functions with tests.
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in (file.stem, *re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def name(self) -> str | None:
        """Under which a reader would save it."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def printed(self) -> list[str]:
        """What it says that it prints: beside a `print(...)`, or in comments of their own behind one."""
        comments = (re.search(r"^# (.*)|print\(.*  # (.*)", line) for line in self.text.splitlines())
        return [found[1] or found[2] for found in comments if found]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    if page.name == "django-tasks.md" and not find_spec("django.tasks"):  # as the page says for older versions
        text = text.replace("from django.tasks", "from django_tasks")
    return (Block(language, text) for language, text in _BLOCK.findall(text))


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_happens(page: Path, empty_database: Database, tmp_path: Path) -> None:
    if page.name == "coming-from-django-tasks.md":
        shutil.copytree(SHOP, tmp_path, dirs_exist_ok=True)
    dsn = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
    settings = {"DJANGO_SETTINGS_MODULE": "shop.settings"} if "django" in page.name else {}
    with Project(tmp_path, dsn, **settings) as project:
        if page.name != "django.md":  # which begins in an empty folder, with an empty database
            project.type("qworker db migrate")
        for block in blocks(page):
            follow(project, block)


def follow(project: Project, block: Block) -> None:
    """Do what a block says; all Python of a page that is no file is one session."""
    if block.name:
        project.write(block.name, block.text)
    elif block.language == "python":
        assert project.say(block.text).splitlines() == block.printed
    elif block.language == "sh":
        for line in block.text.splitlines():
            project.type(line)
    else:
        assert block.language in ("sql", "mermaid"), f"nobody knows what to do with a block of {block.language}"


def test_the_page_on_django_shows_the_example() -> None:
    shown = {block.name: block.text for block in blocks(ROOT / "docs" / "django.md") if block.name}
    assert len(shown) == 5
    for name, text in shown.items():
        assert text == f"# {name}\n{(SHOP / name).read_text()}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`(?:[\w/]+/)?(test_\w+)(?:\.py)?`", page.read_text()))
    assert named <= TESTS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    typed = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    for line in [*re.findall(r"`(qworker [^`]+)`", text), *typed]:
        if not line.startswith("qworker "):
            continue
        command, names = parse(line)
        assert names <= options(command), line
    assert set(re.findall(r"`(--[a-z][a-z-]+)", text)) <= EVERY_OPTION


def parse(line: str) -> tuple[click.Command, set[str]]:
    """Return the command that a line calls, and the names of its options."""
    command: click.Command = main
    words = line.partition(" # ")[0].split()[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    return command, {word.partition("=")[0] for word in words if word.startswith("--")}


def options(command: click.Command) -> set[str]:
    """Return the names of a command's options."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def tree(command: click.Command) -> Iterator[click.Command]:
    """Yield a command and all its subcommands."""
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None:
                yield from tree(found)


#: Options of all commands, and those of other programs that pages mention.
EVERY_OPTION = {name for group in (main, django_group) for command in tree(group) for name in options(command)} | {
    "--preload",
    "--kill-whom",
}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index


def test_the_page_on_watermarks_has_the_values_of_the_constants() -> None:
    page = (ROOT / "docs" / "watermarks.md").read_text()
    rows = re.findall(r"^\| (`[A-Z_`, ]+) \| ([\d.,; ]+) \|", page, re.MULTILINE)
    shown = {
        name: float(value.replace(",", ""))
        for names, values in rows
        for name, value in zip(re.findall(r"\w+", names), values.split("; "), strict=True)
    }
    modules = (settled, releases, scrub, cursors)
    constants = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float) and name != "MAX_POSITION"
    }
    assert shown == constants
