"""`herder serve`: the app under uvicorn, with TLS, a graceful stop, and nothing believed of proxies but what `callers`
believes.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from herder import logs
from herder.api.events import CONNECTION
from herder.apikeys import has_key_secret, key_secret
from herder.app import create_app
from herder.errors import SetupError, Unavailable
from herder.settings import Settings

log = logs.get_logger(__name__)

# Long polls and streams are let go at once; what is left are requests of milliseconds.
STOP_S_MAX = 10
KEEP_ALIVE_S = 75
BACKLOG = 2048
EXIT_AGAIN = 1  # as the courier's: another start may do better
EXIT_BROKEN = 3  # as uvicorn's where it cannot listen: another start would do no better


class Connection(HttpToolsProtocol):
    """uvicorn's, which also lets a request cut its connection: a reader that takes nothing cannot be told to go."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self.transport}  # type: ignore[dict-item]


class Server(uvicorn.Server):
    """uvicorn, except that a stop first ends long polls and streams, for which it would otherwise wait."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._life = contextlib.AsyncExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen. Raises what the app raises, of which uvicorn makes a traceback and exit code 3.

        Says once that it serves; uvicorn says it in five lines.
        """
        app: Any = self.config.app
        async with contextlib.AsyncExitStack() as life:
            await life.enter_async_context(app.router.lifespan_context(app))
            await super().startup(sockets)
            self._life = life.pop_all()
        if self.started:
            # What is there by now stays: no collection needs to look through it again, again and again.
            gc.collect()
            gc.freeze()
            log.info("serving", host=self.config.host, port=self.config.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer what is under way, then stop the app."""
        await super().shutdown(sockets)
        try:
            await self._life.aclose()
        except Exception:
            log.exception("the app did not stop in good order")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop."""
        self.end_long_polls()
        super().handle_exit(sig, frame)

    def end_long_polls(self) -> None:
        """Answer everybody who waits with their job as it is, and end the streams."""
        herd = getattr(getattr(self.config.app, "state", None), "herd", None)
        if herd is not None:
            herd.stopping.set()


def server(settings: Settings, app: Any = None) -> Server:
    """A server for these settings, not yet started. Raises SetupError."""
    if not settings.redis_url:
        raise SetupError("HERDER_REDIS_URL is not set: name a Redis, or use `herder up`, which starts one")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SetupError("HERDER_TLS_CERT and HERDER_TLS_KEY belong together: set both or neither")
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not path.is_file():
            raise SetupError(f"TLS: there is no file {path}")
    if has_key_secret(settings):  # only the app can tell whether one may be made
        key_secret(settings)  # one that cannot be used is said even while Redis is away
    config = uvicorn.Config(
        app or create_app(settings),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        http=Connection,
        log_config=None,
        log_level=logging.WARNING,  # what it says at `info` is said above, in one line
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",  # the server above sees to it
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S_MAX,
    )
    return Server(config)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises SetupError where starting it again cannot help.

    Exits with EXIT_AGAIN where it can: Redis is away. Whoever supervises starts it again.
    """
    logs.configure(settings)
    _many_connections()
    running = server(settings)
    try:
        running.run()
    except SetupError:
        raise
    except Unavailable as error:
        log.error("the API did not start", why=str(error))
        sys.exit(EXIT_AGAIN)
    except Exception:
        log.exception("the API did not start")
        sys.exit(EXIT_BROKEN)


def _many_connections() -> None:
    """Let this process have as many descriptors as it may: each stream takes one, and 1,024 is a usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(
            ValueError, OSError
        ):  # macOS refuses a limit above its own, "unlimited" included
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
