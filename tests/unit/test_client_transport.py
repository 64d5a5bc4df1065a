"""`Herder` and `AsyncHerder` over a transport in memory: what goes out, what comes back, what is hidden."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, Herder, _async, _http, _sync

KEY = "hk_not_to_be_seen"
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HERDER_URL", raising=False)
    monkeypatch.delenv("HERDER_API_KEY", raising=False)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps are written down, not slept."""
    found: list[float] = []

    async def note(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(_sync, "_sleep", found.append)
    monkeypatch.setattr(_async, "_sleep", note)
    return found


class Script:
    """A transport that answers in turn and keeps what it was sent."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(http: int = 200, /, **fields: Any) -> httpx.Response:
    return httpx.Response(http, json=fields)


def test_a_run_over_a_broken_line(slept: list[float]) -> None:
    script = Script(
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ReadTimeout(""),
        answer(202, id="job_1", status="queued", balance=7),
        httpx.RemoteProtocolError("Server disconnected"),
        answer(id="job_1", status="succeeded", result={"text": "hi"}),
    )
    with Herder("http://herd.example/under", KEY, transport=httpx.MockTransport(script)) as herder:
        job = herder.run("What is a chatbot?", 40, multiplier=1.5)
    assert job.text == "hi"
    assert len(slept) == 3
    posts = [request for request in script.seen if request.method == "POST"]
    assert len({request.headers["idempotency-key"] for request in posts}) == 1
    assert {str(request.url) for request in posts} == {"http://herd.example/under/v1/jobs"}
    assert json.loads(posts[0].content) == {"prompt": "What is a chatbot?", "tokens": 40, "multiplier": 1.5}
    assert posts[0].headers["authorization"] == f"Bearer {KEY}"
    assert posts[0].headers["user-agent"].startswith("llama-herder/")


async def test_the_async_client_does_the_same(slept: list[float]) -> None:
    script = Script(
        httpx.ConnectError("refused"),
        answer(202, id="job_1", status="queued"),
        answer(id="job_1", status="succeeded", result={"text": "hi"}),
    )
    async with AsyncHerder(api_key=KEY, transport=httpx.MockTransport(script)) as herder:
        job = await herder.run("What is a chatbot?", tokens=40)
    assert job.text == "hi"
    assert len(slept) == 1
    assert script.seen[-1].url.params["wait"] == "30"


def test_the_two_clients_have_the_same_calls() -> None:
    for ours, theirs in ((Herder, AsyncHerder), (llama_herder.Admin, llama_herder.AsyncAdmin)):
        names = {name for name in vars(ours) if not name.startswith("_")}
        assert len(names) >= 12
        assert names == {name for name in vars(theirs) if not name.startswith("_")}
        for name in names:
            signatures = [str(inspect.signature(getattr(kind, name))) for kind in (ours, theirs)]
            assert signatures[0] == signatures[1].replace("-> 'Async", "-> '")


def test_the_environment_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(answer(), answer())
    monkeypatch.setenv("HERDER_URL", "http://from.env")
    monkeypatch.setenv("HERDER_API_KEY", "hk_env")
    with Herder(transport=httpx.MockTransport(script)) as herder:
        herder.info()
    with Herder("http://given", "hk_given", transport=httpx.MockTransport(script)) as herder:
        herder.info()
    assert [request.url.host for request in script.seen] == ["from.env", "given"]
    assert [request.headers["authorization"] for request in script.seen] == [
        "Bearer hk_env",
        "Bearer hk_given",
    ]


def test_the_key_is_in_no_repr_and_no_error() -> None:
    script = Script(answer(401, code="invalid_key", detail="no"))
    with Herder("http://herd.example", KEY, transport=httpx.MockTransport(script)) as herder:
        assert repr(herder) == "Herder('http://herd.example')"
        with pytest.raises(llama_herder.InvalidKey) as caught:
            herder.account()
    assert KEY not in repr(caught.value) + str(caught.value) + repr(herder)


def test_the_key_does_not_follow_a_redirect() -> None:
    script = Script(httpx.Response(307, headers={"location": "http://elsewhere.example/v1/account"}))
    herder = Herder("http://herd.example", KEY, transport=httpx.MockTransport(script))
    with herder, pytest.raises(llama_herder.HerderError, match=r"redirects to http://elsewhere\.example"):
        herder.account()
    assert len(script.seen) == 1


def test_a_long_poll_may_be_silent_for_longer() -> None:
    script = Script(answer(id="job_1", status="failed"))
    with Herder(timeout=5, transport=httpx.MockTransport(script)) as herder:
        assert herder.wait("job_1").status == "failed"
    assert script.seen[0].extensions["timeout"]["read"] == 35
    assert script.seen[0].extensions["timeout"]["connect"] == 5


def test_nothing_listening_says_where_and_what_to_do() -> None:
    script = Script(httpx.ConnectError("[Errno 111] Connection refused"))
    herder = Herder(tries=1, transport=httpx.MockTransport(script))
    with herder, pytest.raises(llama_herder.CannotConnect) as caught:
        herder.info()
    assert str(caught.value) == (
        "cannot connect to http://127.0.0.1:8080: connection refused "
        "(is a herd running there? `herder up` starts one)"
    )


def test_pages_are_sequences_with_a_cursor() -> None:
    script = Script(answer(jobs=[{"id": "job_2"}, {"id": "job_1"}], next="c1"), answer(jobs=[], next=None))
    with Herder(transport=httpx.MockTransport(script)) as herder:
        page = herder.jobs(limit=2)
        last = herder.jobs(limit=2, cursor=page.next)
    assert [job.id for job in page] == ["job_2", "job_1"]
    assert (page[0].id, len(page), page.next, list(last), last.next) == ("job_2", 2, "c1", [], None)
    assert dict(script.seen[1].url.params) == {"limit": "2", "cursor": "c1"}


def test_broken_replies_are_told_from_requests_that_never_left() -> None:
    assert not _http.broken_of(httpx.ConnectTimeout("")).sent
    assert not _http.broken_of(httpx.PoolTimeout("")).sent
    assert _http.broken_of(httpx.ReadTimeout("")).sent
    assert _http.broken_of(httpx.DecodingError("bad gzip")).sent
    assert _http.broken_of(httpx.ReadError("")).why == "the connection broke"


def test_admin_calls_go_where_they_should() -> None:
    script = Script(*[answer(id="ann", keys=[], accounts=[], entries=[]) for _ in range(11)])
    with Herder(transport=httpx.MockTransport(script)) as herder:
        admin = herder.admin
        admin.create("ann", 5)
        admin.accounts()
        admin.account("ann")
        admin.deposit("ann", 5, "gift", "d1")
        admin.adjust("ann", -5, "typo")
        admin.suspend("ann")
        admin.resume("ann")
        admin.ledger("ann", 3)
        admin.keys("ann")
        admin.create_key("ann", "admin", "laptop")
        admin.revoke_key("ann", "k1")
    sent = [
        f"{r.method} {r.url.path.removeprefix('/v1/admin/accounts')} {r.content.decode()}"
        for r in script.seen
    ]
    assert sent == [
        'POST  {"id":"ann","credits":5}',
        "GET  ",
        "GET /ann ",
        'POST /ann/deposit {"amount":5,"deposit_id":"d1","memo":"gift"}',
        'POST /ann/adjust {"amount":-5,"memo":"typo"}',
        "POST /ann/suspend ",
        "POST /ann/resume ",
        "GET /ann/ledger ",
        "GET /ann/keys ",
        'POST /ann/keys {"role":"admin","label":"laptop"}',
        "DELETE /ann/keys/k1 ",
    ]


def test_the_library_needs_httpx_alone() -> None:
    code = "import sys, llama_herder; print(*{name.partition('.')[0] for name in sys.modules})"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(child.stdout.split())
    assert {"llama_herder", "httpx"} <= loaded
    assert not loaded & {"herder", "worker", "typer", "fastapi", "redis", "pydantic", "numpy"}
