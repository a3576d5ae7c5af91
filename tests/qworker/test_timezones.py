"""The version of the time zones that zoneinfo reads."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qworker import timezones


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [("tzdata.zi", "# version 2025b\n# ddeps\n", "2025b"), ("+VERSION", "2024a\n", "2024a"), ("other", "2024a", None)],
)
def test_the_version_is_that_of_the_first_folder_with_zones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, version: str | None
) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    used.mkdir()
    (used / "UTC").write_bytes(b"TZif2")
    (used / name).write_text(text)
    monkeypatch.setattr(timezones, "TZPATH", (str(empty), str(used)))
    assert timezones.timezone_version() == version


@pytest.mark.parametrize(("package", "version"), [(SimpleNamespace(IANA_VERSION="2026f"), "2026f"), (None, None)])
def test_without_a_folder_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: object, version: str | None
) -> None:
    monkeypatch.setattr(timezones, "TZPATH", (str(tmp_path),))
    monkeypatch.setitem(sys.modules, "tzdata", package)
    assert timezones.timezone_version() == version
