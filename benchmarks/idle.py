"""Count what a node that has nothing to do sends to the database, and the processor time it uses; see README.md.

It needs no quiet machine: the server logs each statement, and the kernel counts processor time.
"""

import argparse
import re
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from stage import Node, Stage, cpu, until

#: What an idle node may send, in statements a second, and use, in per cent of a core.
MOST_STATEMENTS, MOST_CPU = 1.0, 1.0
#: Time after the start that does not count (seconds): a node registers, and finds after half a minute that it is quiet.
SETTLING = 45.0
#: What the server writes ahead of a statement.
PREAMBLE = re.compile(r".*?(?:execute [^:]*|statement): +")


@dataclass(frozen=True)
class Idling:
    """What an idle node has done."""

    seconds: float
    #: Its statements, as the server has logged them.
    statements: list[str]
    #: The number of those in each minute.
    by_minute: list[int]
    #: Processor time, in per cent of a core: of the node, and of the server.
    node_cpu: float
    server_cpu: float

    @property
    def rate(self) -> float:
        """Statements a second."""
        return len(self.statements) / self.seconds

    @property
    def kinds(self) -> Counter[str]:
        """The number of statements with the same beginning; what follows it may be values."""
        return Counter(PREAMBLE.sub("", line, count=1)[:90] for line in self.statements)


def observe(stage: Stage, processes: int, minutes: int) -> Idling:
    """Start a node, and watch it for so many minutes after it has found that nothing happens."""
    stage.clear()
    with Node(stage, processes) as node, stage.logging() as logged:
        until(stage.idle)
        time.sleep(SETTLING)

        def used() -> tuple[float, float]:
            return cpu(node.process.pid), cpu(stage.server.pid or 0)

        before, start, marks = used(), time.monotonic(), [len(logged())]
        for minute in range(1, minutes + 1):
            time.sleep(max(0.0, start + 60 * minute - time.monotonic()))
            marks.append(len(logged()))
        seconds = time.monotonic() - start
        shares = [(now - then) / seconds * 100 for then, now in zip(before, used(), strict=True)]
        return Idling(seconds, logged()[marks[0] : marks[-1]], [b - a for a, b in pairwise(marks)], *shares)


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=21, help="how long to count (default: 21)")
    parser.add_argument("--processes", type=int, default=8, help="the number of workers (default: 8)")
    arguments = parser.parse_args()
    with Stage() as stage:
        found = observe(stage, arguments.processes, arguments.minutes)
    print(f"{len(found.statements)} statements in {found.seconds:.0f} s: {found.rate:.3f}/s; ", end="")
    print(f"in the busiest minute {max(found.by_minute) / 60:.3f}/s")
    print(f"CPU: node {found.node_cpu:.2f} % of a core, server {found.server_cpu:.2f} %")
    for text, count in found.kinds.most_common():
        print(f"{count:7} {text}")
    return int(found.rate > MOST_STATEMENTS or found.node_cpu > MOST_CPU)


if __name__ == "__main__":
    raise SystemExit(main())
