"""The check of commit messages, as Git runs it through pre-commit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "check_message.py"
BODY = "\n\nThe old token was still accepted: a stale worker could release the job twice.\n"


def check(folder: Path, message: str) -> subprocess.CompletedProcess[str]:
    file = folder / "COMMIT_EDITMSG"
    file.write_text(message, encoding="utf-8")
    return subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "message",
    [
        f"Fence releases by token{BODY}",
        f"{'x' * 72}{BODY}",
        f"Fence releases by token{BODY}\nCo-authored-by: A <a@example.org>\n",
        f"\n# a comment\nFence releases by token\n# another{BODY}",
        f"Fence releases by token{BODY}# {'-' * 24} >8 {'-' * 24}\ndiff --git a/f b/f\n+.\n",
        "Merge branch 'main' into topic",
        'Revert "Fence releases by token"',
        "fixup! Fence releases by token",
    ],
)
def test_a_good_message_passes(message: str, tmp_path: Path) -> None:
    done = check(tmp_path, message)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (f"{'x' * 73}{BODY}", "the subject has 73 characters, at most 72"),
        (f"Fence releases by token.{BODY}", "ends with a full stop"),
        ("Fence releases by token\n", "there is no body"),
        ("Fence releases by token\n\n# Please enter the commit message.\n", "there is no body"),
        ("Fence releases by token\n\nSigned-off-by: A <a@example.org>\n", "there is no body"),
        (f"Fence releases by token\n\n# {'-' * 24} >8 {'-' * 24}\ndiff --git a/f b/f\n", "there is no body"),
        ("Fence releases by token\nThe old one was accepted.\n", "the second line must be empty"),
        ("# only comments\n\n", "the message is empty"),
    ],
)
def test_a_bad_message_is_rejected_with_the_reason(message: str, problem: str, tmp_path: Path) -> None:
    done = check(tmp_path, message)
    assert done.returncode == 1
    assert problem in done.stderr


def test_all_problems_of_a_message_are_reported(tmp_path: Path) -> None:
    done = check(tmp_path, f"{'x' * 80}.")
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.skipif(shutil.which("git") is None, reason="the checkout may have come without git")
def test_git_refuses_a_commit_that_the_configured_hook_rejects(tmp_path: Path) -> None:
    """Runs the entry of .pre-commit-config.yaml; pre-commit itself would fetch environments."""
    entry = next(
        line.split("entry: ")[1].split()
        for line in (ROOT / ".pre-commit-config.yaml").read_text().splitlines()
        if "entry: " in line and "check_message" in line
    )
    assert entry == [".venv/bin/python", ".ci/check_message.py"]

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(
            ["git", "-C", tmp_path, *arguments], env=clean | names, capture_output=True, text=True, check=False
        )

    git("init", "--quiet")
    hook = tmp_path / ".git" / "hooks" / "commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SCRIPT}" "$1"\n')
    hook.chmod(0o755)
    refused = git("commit", "--allow-empty", "--message", "Fence releases by token.")
    assert refused.returncode != 0
    assert "ends with a full stop" in refused.stderr
    made = git("commit", "--allow-empty", "--message", f"Fence releases by token{BODY}")
    assert made.returncode == 0, made.stderr
