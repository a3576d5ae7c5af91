"""The metrics of the cluster for Prometheus, as nodes have them, but once."""

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import Forbidden, NotFound

from qworkerd.web import health, texts
from qworkerd.web.access import VIEW
from qworkerd.web.ages import CURRENT
from qworkerd.web.view import View

blueprint = Blueprint("metrics", __name__)


class Read:
    """A collector of metrics that were read before."""

    def __init__(self, metrics: Iterable[Any]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Any]:
        """Return the metrics."""
        return self._metrics


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
    examined = health.examination(view)
    findings = [] if examined is None else examined.findings
    found = view.share("cluster", CURRENT, lambda conn: view.source.cluster.state(conn, findings))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Read(cluster(found, view.source.schema)))
    encode, mimetype = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(registry), content_type=mimetype)
