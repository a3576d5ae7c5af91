"""The metrics of the cluster for Prometheus, as nodes have them, but once: there is no page for them."""

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import Forbidden, NotFound

from qworkerd.web import health, texts
from qworkerd.web.access import VIEW
from qworkerd.web.ages import CURRENT
from qworkerd.web.view import View

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def scrape() -> Response:
    """Return the metrics of the cluster in the format that was asked for, at most five seconds old."""
    view: View = g.view
    if not view.may(VIEW):
        raise Forbidden(texts.refusals.no_right_to_see(VIEW))
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        from qworkerd.metrics.cluster import cluster
    except ImportError as error:
        raise NotFound(texts.refusals.no_metrics(str(error))) from error
    findings = health.examination(view)

    class State:
        """A collector of what was read."""

        def collect(self) -> Iterator[Any]:
            return cluster(found, view.source.schema)

    def read(conn: Any) -> dict[str, Any]:
        return view.source.cluster.state(conn, [] if findings is None else findings.findings)

    found = view.share("cluster", CURRENT, read)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(State())
    encode, mimetype = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(registry), content_type=mimetype)
