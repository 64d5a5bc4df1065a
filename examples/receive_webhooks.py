"""Receives a herd's webhooks: verifies each, answers at once, does the work once.

    python examples/receive_webhooks.py --port 9000 --secret whsec_…

Needs `pip install .` in a clone and nothing else. The herd must be allowed to reach it: one on this machine is, if it
was started with HERDER_WEBHOOK_ALLOW=127.0.0.0/8 and HERDER_WEBHOOK_PORTS=80,443,9000 (the whole list: it replaces 80
and 443). docs/how-to/receive-webhooks.md goes through it step by step.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llama_herder import WebhookInvalid, verify_webhook

BODY_BYTES_MAX = 100_000  # a herder's are below 20 000
SEEN_MAX = 10_000
SILENCE_S_MAX = 10.0


class Seen:
    """The ids of the last webhooks. One that must not be worked on twice belongs in your database instead."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def is_new(self, webhook_id: str) -> bool:
        """Whether this is the first time."""
        with self._lock:
            new = webhook_id not in self._ids
            self._ids[webhook_id] = None
            if len(self._ids) > SEEN_MAX:
                self._ids.popitem(last=False)
            return new

    def forget(self, webhook_id: str) -> None:
        """It was not worked on after all: the next attempt is the first."""
        with self._lock:
            self._ids.pop(webhook_id, None)


class Receiver(ThreadingHTTPServer):
    """The server, what it verifies with, and what it has seen."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], secrets: list[str]) -> None:
        super().__init__(address, Handler)
        self.secrets, self.seen = secrets, Seen()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = SILENCE_S_MAX
    server: Receiver

    def do_POST(self) -> None:
        """204 where it is the herd's, also the second time; 400 where it is not, 500 where the work failed."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or len(size) > 9 or int(size) > BODY_BYTES_MAX:
            return self._answer(413)
        try:
            event = verify_webhook(self.headers, self.rfile.read(int(size)), self.server.secrets)
        except WebhookInvalid as error:
            print(f"refused: {error}", flush=True)
            return self._answer(error.status)
        webhook_id = self.headers["webhook-id"]
        if self.server.seen.is_new(webhook_id):
            try:
                handle(event)
            except Exception as error:  # answered 204, it would never come again
                self.server.seen.forget(webhook_id)
                print(f"failed: {webhook_id}: {error!r}", flush=True)
                return self._answer(500)
        return self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """One line for each event is enough."""


def handle(event: dict[str, Any]) -> None:
    """Here goes what you do with it. Be quick, or hand it on: the herd waits 15 seconds for the answer."""
    about = event["data"]
    text = (about.get("result") or {}).get("text", "")
    print(f"{event['type']} {about['id']} {text[:60]!r}", flush=True)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Receive a herd's webhooks.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument(
        "--secret", action="append", help="whsec_…; again for another (or HERDER_WEBHOOK_SECRET)"
    )
    arguments = parser.parse_args()
    secrets = arguments.secret or os.environ.get("HERDER_WEBHOOK_SECRET", "").split()
    if not secrets:
        parser.error("no secret: give the one that the herd showed for this address")
    with Receiver((arguments.host, arguments.port), secrets) as receiver:
        print(f"listening on http://{arguments.host}:{receiver.server_port}", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")
