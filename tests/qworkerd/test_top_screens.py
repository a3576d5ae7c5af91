"""The screens of `qworker top` with data that does not change, also those in the documentation."""

import html
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qworkerd.top_pictures import FOLDER, PICTURES, SHOWN, Picture, draw

SCREENS = Path(__file__).parent / "top_screens"
REMEDY = "draw it anew by `python -m tests.qworkerd.top_pictures`, and look at it"


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def words(svg: str) -> list[str]:
    """Return the texts of a picture, whatever a version of textual puts around them."""
    return [word for text in re.findall(r"<text [^>]*>(.*?)</text>", svg) if (word := html.unescape(text).strip())]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_screen_is_as_it_was_last_looked_at(picture: Picture) -> None:
    text, svg = draw(picture)
    assert text == (SCREENS / f"{picture.name}.txt").read_text(), REMEDY
    assert all(len(line) <= picture.size[0] for line in text.splitlines())
    assert "\x1b" not in svg
    if picture.name in SHOWN:
        assert words(svg) == words((FOLDER / f"{picture.name}.svg").read_text()), REMEDY


def test_no_screen_is_left_of_a_picture_that_is_gone() -> None:
    assert {path.stem for path in SCREENS.iterdir()} == {picture.name for picture in PICTURES}
    assert {path.stem for path in FOLDER.iterdir()} == set(SHOWN)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000
