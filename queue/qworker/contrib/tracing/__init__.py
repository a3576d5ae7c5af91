"""Tracing by OpenTelemetry (extra `tracing`): `Tracing(app)`."""

from qworker.contrib.tracing.extension import Tracing

__all__ = ["Tracing"]
