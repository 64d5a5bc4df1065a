"""A receiver of webhooks on a loopback port: it writes down what comes and answers as it is told, well or badly."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

WAIT_S = 30.0


@dataclass(frozen=True)
class Hit:
    """One request that came, with its place among all of them, from 0."""

    number: int
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The event, its signature and time checked by the standard's own library."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(frozen=True)
class Reply:
    """What is answered; without a status nothing is, until the receiver closes."""

    status: int | None = 204
    headers: dict[str, str] = field(default_factory=dict)


HANG = Reply(None)
Answering = Callable[[Hit], Reply]


class Receiver:
    """What has come, and `answering`, which may be changed at any time."""

    def __init__(self, answering: Answering | None = None) -> None:
        self.answering: Answering = answering or (lambda _: Reply())
        self.hits: list[Hit] = []
        self.closing = threading.Event()
        self.url = ""
        self._changed = threading.Condition()

    def ids(self) -> list[str]:
        """The webhook-id of each request, in order."""
        return [hit.id for hit in list(self.hits)]

    def until(self, count: int, limit_s: float = WAIT_S) -> list[Hit]:
        """Wait for so many requests; all that came."""
        return self.until_true(lambda: len(self.hits) >= count, f"{count} requests", limit_s)

    def until_true(self, condition: Callable[[], bool], what: str, limit_s: float = WAIT_S) -> list[Hit]:
        """Wait until something is true of the requests, looked at after each one; all that came."""
        with self._changed:
            found = self._changed.wait_for(condition, limit_s)
        assert found, f"{what}: not within {limit_s:.0f} s, {len(self.hits)} requests came"
        return list(self.hits)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Write a request down; what to answer."""
        with self._changed:
            hit = Hit(len(self.hits), path, headers, body)
            self.hits.append(hit)
            self._changed.notify_all()
        return self.answering(hit)


@contextlib.contextmanager
def receiving(answering: Answering | None = None) -> Iterator[Receiver]:
    """A receiver that listens until the block ends."""
    receiver = Receiver(answering)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            reply = receiver.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            if reply.status is None:
                receiver.closing.wait()
                return
            with contextlib.suppress(OSError):  # the sender may have given up
                self.send_response(reply.status)
                for name, value in {"content-length": "0", **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        request_queue_size = 256

        def handle_error(self, *_: Any) -> None:
            """A sender that broke off is none of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="receiver")
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
