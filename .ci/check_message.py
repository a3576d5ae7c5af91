"""Check a commit message: `check_message.py FILE`, as Git calls its commit-msg hook.

The subject has at most 72 characters and no full stop at its end, the second line is empty, and a body says why.
"""

import re
import sys
from pathlib import Path

#: Maximum length of the subject (characters); `git log --oneline` shows it in a line of a terminal.
LONGEST_SUBJECT = 72
#: `git commit --verbose` appends the diff below this line.
SCISSORS = "# ------------------------ >8 ------------------------"
#: Subjects that Git generates: merges, reverts, and commits that a rebase will squash.
GENERATED = re.compile(r"Merge |Revert \"|(fixup|squash|amend)! ")
#: A trailer as git-interpret-trailers(1) writes it; trailers do not count as a body.
TRAILER = re.compile(r"[A-Z][A-Za-z]*(-[A-Za-z]+)*: \S")


def problems(message: str) -> list[str]:
    """Return what is wrong with a message; comments and the diff that Git appends are ignored."""
    text = message.partition(SCISSORS)[0]
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("#")]
    while lines and not lines[0]:
        del lines[0]
    if not lines:
        return ["the message is empty"]
    subject, rest = lines[0], lines[1:]
    if GENERATED.match(subject):
        return []
    found = []
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters, at most {LONGEST_SUBJECT} are allowed: {subject!r}")
    if subject.endswith("."):
        found.append(f"the subject ends with a full stop: {subject!r}")
    if rest and rest[0]:
        found.append(f"the second line must be empty, not {rest[0]!r}")
    if not any(line and not TRAILER.match(line) for line in rest):
        found.append("there is no body: say below an empty line why the change is made")
    return found


def main(path: str) -> int:
    """Print what is wrong with the message in a file; return the exit code."""
    found = problems(Path(path).read_text(encoding="utf-8"))
    for problem in found:
        print(f"commit message: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
