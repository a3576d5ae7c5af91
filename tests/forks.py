"""Run a part of a test in a process of its own."""

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


def apart(function: Callable[[], T]) -> T:
    """Return what the function returns in a forked process, which has no children but those it makes."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            answer: tuple[str, object] = ("returned", function())
            code = 0
        except BaseException:  # noqa: BLE001 - the parent raises it again
            answer = ("raised", traceback.format_exc())
        finally:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read()
    os.waitpid(pid, 0)
    what, value = pickle.loads(message)  # noqa: S301 - our own process wrote it
    assert what == "returned", value
    return cast("T", value)
