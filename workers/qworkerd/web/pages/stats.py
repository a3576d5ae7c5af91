"""The load of queues for autoscalers, as `qworker stats --json` has it, as JSON only."""

from typing import Any

from flask import Blueprint, Response, g
from werkzeug.exceptions import Forbidden

from qworker.statistics import TARGET_DRAIN, Statistics, load_as_dict
from qworkerd.web import texts
from qworkerd.web.access import VIEW
from qworkerd.web.ages import LOAD
from qworkerd.web.plain import as_json
from qworkerd.web.view import View

blueprint = Blueprint("stats", __name__)
#: The longest time in which the wanted workers may run what waits (seconds).
MAX_DRAIN = 86_400


@blueprint.get("/stats.json")
def load() -> Response:
    """Return the load of each queue, or of one, at most a second old."""
    view: View = g.view
    if not view.may(VIEW):
        raise Forbidden(texts.refusals.no_right_to_see(VIEW))
    queue = view.parameters.text("queue") or None
    drain = view.parameters.number("target_drain", int(TARGET_DRAIN), least=1, most=MAX_DRAIN) or TARGET_DRAIN
    statistics = Statistics(view.source.schema)

    def read(conn: Any) -> dict[str, Any]:
        found = statistics.load(conn, queue=queue, target_drain=float(drain))
        return {"queues": {one.queue: load_as_dict(one) for one in found}}

    return Response(as_json(view.share(("load", queue, drain), LOAD, read)), mimetype="application/json")
