"""Load the App named by `--app package.module:attribute`."""

import importlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import qworker
from qworker.app import App
from qworker.errors import ConfigurationError

#: The folders of qworker and of the import system, whose frames are skipped in the location of an import error.
_INTERNAL = (Path(__file__).parent, Path(qworker.__file__).parent, Path(importlib.__file__).parent)
_MISSING = object()
#: The directories of Python and of installed packages, even if an environment is inside the project's directory.
_LIBRARIES = tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def load_app(spec: str) -> App:
    """Import the module and return the App under the attribute's name.

    The current directory comes first on `sys.path`, as with `python -m`. Raises ConfigurationError with a message of
    one line; the original exception is its cause.
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigurationError(
            f"app {spec!r} does not name an application: use package.module:attribute, for example shop.jobs:app"
        )
    found: object = _import(module_name, spec)
    for part in attribute.split("."):
        # A module may have a __getattr__ that loads the application.
        found = _run(partial(getattr, found, part, _MISSING), spec)
        if found is _MISSING:
            others = _list_apps(sys.modules[module_name])
            raise ConfigurationError(f"app {spec!r}: module {module_name} has no attribute {attribute!r}{others}")
    if not isinstance(found, App):
        kind = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ConfigurationError(f"app {spec!r} is {kind}, not a qworker.App{_list_apps(sys.modules[module_name])}")
    _run(found.load, spec)
    return found


def _import(name: str, spec: str) -> ModuleType:
    directory = str(Path.cwd())
    if directory not in sys.path and "" not in sys.path[:1]:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"app {spec!r}: no module named {error.name!r} in {directory} or elsewhere on the import path"
            ) from error
        raise _broken(spec, error) from error
    # Importing an application runs its code; any exception, including SystemExit, makes the application unusable.
    except (Exception, SystemExit) as error:
        raise _broken(spec, error) from error


class Line(NamedTuple):
    """A line of a source file."""

    file: str
    number: int | None


def _run(function: Callable[[], object], spec: str) -> object:
    """Call code of the application; raises ConfigurationError for whatever it raises."""
    try:
        return function()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(spec, error) from error


def _broken(spec: str, error: BaseException) -> ConfigurationError:
    """Return an error that describes in one line what an import raised, and where."""
    text = " ".join(str(error).split())
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = [Line(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        text = error.msg
        message = f"{type(error).__name__}: {text}"
        lines.append(Line(error.filename, error.lineno))
    outside = [line for line in lines if not line.file.startswith("<") and not _within(line.file, _INTERNAL)]
    # The application's own code is more informative than the library that raised.
    own = [line for line in outside if not _within(line.file, _LIBRARIES)]
    where = next((f" ({line.file}:{line.number})" for line in reversed(own or outside)), "")
    return ConfigurationError(f"app {spec!r}: importing it raised {message}{where}")


def _within(filename: str, folders: Iterable[Path]) -> bool:
    return any(Path(filename).is_relative_to(folder) for folder in folders)


def _list_apps(module: ModuleType) -> str:
    """Return the end of a message that names the Apps of a module; an empty string if it has none."""
    names = sorted(name for name, value in vars(module).items() if isinstance(value, App))
    return f"; it contains {', '.join(f'{module.__name__}:{name}' for name in names)}" if names else ""
