"""Arguments of a job that a user has edited: read, checked against the task, and with what was masked put back."""

import json
from typing import Any

from qworker.app import App
from qworker.errors import InvalidPayload, QworkerError, UnknownTask
from qworker.job import Job
from qworker.payload import POSITIONAL, encode
from qworkerd.log.redaction import mask_json
from qworkerd.log.visible import visible_json
from qworkerd.web import texts
from qworkerd.web.parameters import InvalidParameter


def as_text(args: object) -> str:
    """Return arguments as JSON for a field of a form: exact, with passwords masked and invisible characters escaped."""
    return visible_json(json.dumps(mask_json(args), ensure_ascii=False, indent=2))


def edited(app: App | None, job: Job, text: str) -> dict[str, Any]:
    """Return the arguments to store from the JSON of a form; raises InvalidParameter.

    The page shows passwords as ***. Where the user has left that, the value stays as it was.
    """
    given = _unmasked(_read(text), mask_json(job.args), job.args)
    if not isinstance(given, dict):
        raise InvalidParameter(texts.refusals.NO_OBJECT)
    if app is None:
        return _encodable(given)
    return _checked(app, job, given)


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise InvalidParameter(texts.refusals.TOO_DEEP) from None
    except ValueError as error:
        raise InvalidParameter(texts.refusals.no_json(error)) from None


def _refuse(constant: str) -> Any:
    raise ValueError(texts.refusals.no_number(constant))


def _unmasked(given: Any, shown: Any, stored: Any) -> Any:
    """Return what was given, with the stored value wherever the user has left what was shown."""
    if given == shown and type(given) is type(shown):
        return stored
    if isinstance(given, dict) and isinstance(shown, dict) and isinstance(stored, dict):
        return {
            name: _unmasked(value, shown[name], stored[name]) if name in shown and name in stored else value
            for name, value in given.items()
        }
    if isinstance(given, list) and isinstance(shown, list) and isinstance(stored, list):
        pairs = list(zip(shown, stored, strict=False))
        return [_unmasked(value, *pairs[at]) if at < len(pairs) else value for at, value in enumerate(given)]
    return given


def _encodable(args: dict[str, Any]) -> dict[str, Any]:
    try:
        encode(args)
    except (QworkerError, TypeError, ValueError, RecursionError) as error:
        raise InvalidParameter(texts.refusals.not_storable(error)) from None
    return args


def _checked(app: App, job: Job, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as the task of the application stores them."""
    positional = args.get(POSITIONAL)
    rest = {name: value for name, value in args.items() if name != POSITIONAL}
    try:
        task = app.get_task(job.task)
    except UnknownTask:
        return _encodable(args)  # of another application, or of one that is deployed later
    try:
        if task.conversion is not None:
            rest = task.load(json.dumps(args))
            positional = None
        bound = task.parameters.bind(tuple(positional) if isinstance(positional, list) else (), rest)
        found: dict[str, Any] = json.loads(encode(bound))
    except (InvalidPayload, QworkerError, TypeError, ValueError, RecursionError) as error:
        raise InvalidParameter(texts.refusals.not_accepted(job.task, error)) from None
    return found
