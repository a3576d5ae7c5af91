"""Call a function of a peer's module and print the seconds it took: `script.py NAME_noops VERB NUMBER...`.

The module is imported under its own name and never run as __main__: several peers store that name in the job.
"""

import asyncio
import importlib
import inspect
import sys
import time


def main() -> None:
    module, name, *numbers = sys.argv[1:]
    verb = getattr(importlib.import_module(module), name)
    start = time.perf_counter()
    found = verb(*map(int, numbers))
    if inspect.iscoroutine(found):
        asyncio.run(found)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
