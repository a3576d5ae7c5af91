"""A transport of the real SDK that keeps what it would send, in memory and in a file."""

import json
import os
from pathlib import Path
from typing import Any

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport


class KeepingTransport(Transport):
    """Keeps the payloads of each kind: event, transaction, check_in, attachment."""

    kept: list[tuple[str, Any]] = []  # noqa: RUF012 - the SDK makes the transport

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            kind = str(item.type)
            payload = (
                item.payload.json if item.payload.json is not None else item.get_bytes().decode("utf-8", "replace")
            )
            self.kept.append((kind, payload))
            if folder := os.environ.get("QWORKER_TEST_DIR"):
                with (Path(folder) / f"sentry-{os.getpid()}").open("a") as file:
                    file.write(json.dumps([kind, payload], default=str) + "\n")

    def of(self, kind: str) -> list[Any]:
        return [payload for found, payload in self.kept if found == kind]
