"""The library's batches over a transport in memory: what is sent, what is lost on the way, what comes once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llama_herder
from llama_herder import AsyncHerder, Batch, Herder, _batch_calls
from llama_herder._batch_results import Lines, TooLong
from llama_herder._calls import OUTAGE_S
from tests.unit.batch_script import BATCH, BOTH, Script, both, ended, line
from tests.unit.stream_script import Fault, nothing, problem

Kind = type[Herder | AsyncHerder]
PROMPTS = ["one", "zwei ♥", "three"]


# --- submitting ------------------------------------------------------------------------------------------


@BOTH
def test_prompts_of_any_shape_become_items(kind: Kind) -> None:
    script = Script()
    chat: list[llama_herder.Message] = [{"role": "user", "content": "hi"}]
    mixed = ["one", chat, {"custom_id": "c", "prompt": "three", "tokens": 8, "seed": None}]
    (batch,), error, _ = both(kind, script, lambda h: h.batch(mixed, 40, multiplier=1.5, stop="x"))
    assert error is None
    assert script.options == {"tokens": 40, "multiplier": 1.5, "stop": ["x"]}
    assert script.items == [
        {"prompt": "one"},
        {"messages": chat},
        {"custom_id": "c", "prompt": "three", "tokens": 8},
    ]
    assert (batch.id, batch.total, batch.balance, batch.counts.ended, batch.ended) == (BATCH, 3, 7, 3, True)


def test_plain_prompts_are_sent_as_they_are_and_defaults_are_left_out() -> None:
    call = _batch_calls.batch(
        iter(PROMPTS),
        40,
        {"raw": False, "model": None},
        key="k",
        charge="all_or_nothing",
        webhook_per_item=False,
    )
    assert call.send.body == {"tokens": 40, "prompts": PROMPTS}
    assert call.send.headers == {"Idempotency-Key": "k"}
    told = _batch_calls.batch(
        PROMPTS, 40, {"fee": 9}, key=None, charge="as_many_as_affordable", webhook_per_item=True
    )
    assert told.send.body == {
        "tokens": 40,
        "fee": 9,
        "charge": "as_many_as_affordable",
        "webhook_per_item": True,
        "prompts": PROMPTS,
    }


@BOTH
def test_more_than_a_body_takes_is_sent_as_lines(kind: Kind) -> None:
    script = Script()
    many = [f"♥\n{n}" for n in range(_batch_calls.ITEMS_MAX + 1)]
    options: dict[str, Any] = {"stop": ["a", "b"], "raw": True, "multiplier": 1.5, "metadata": {"for": "♥"}}
    _, error, _ = both(kind, script, lambda h: h.batch(many, 40, **options))
    assert error is None
    assert script.items == [{"prompt": prompt} for prompt in many]
    (request,) = script.seen
    assert request.headers["content-type"] == "application/jsonl"
    assert request.url.params.multi_items() == [
        ("tokens", "40"),
        ("stop", "a"),
        ("stop", "b"),
        ("raw", "true"),
        ("multiplier", "1.5"),
        ("metadata", '{"for":"♥"}'),
    ]
    assert request.extensions["timeout"]["read"] > 100


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("one prompt", r"a list of prompts such as \[.*\], not a str"),
        ({"prompt": "x"}, r"a list of prompts such as \[.*\], not a dict"),
        (None, "not None"),
        ([{"role": "user", "content": "x"}], "one chat is not a batch"),
        (["x", {"tokens": 5}], "item 1 has neither"),
        (["x", 5], "item 1: a prompt must be text, or a list of messages such as"),
    ],
)
def test_what_is_no_batch_is_refused_before_anything_is_sent(prompts: Any, words: str) -> None:
    script = Script()
    with Herder(transport=httpx.MockTransport(script)) as herder:
        for call in (herder.batch, herder.map):
            with pytest.raises(TypeError, match=words):
                call(prompts, 40)
    assert script.seen == []


@BOTH
def test_a_batch_whose_reply_was_lost_is_paid_once(kind: Kind) -> None:
    script = Script()
    script.faults = [script.lost, problem(503, "overloaded"), script.lost]
    (batch,), error, pauses = both(kind, script, lambda h: h.batch(PROMPTS, 40))
    assert error is None
    assert batch.id == BATCH
    assert len(script.paid) == 1
    assert pauses.taken == [0.25, 0.5, 1.0]


@BOTH
def test_a_reply_that_stays_lost_names_the_key(kind: Kind) -> None:
    script = Script()
    script.faults = [script.lost] * 5
    _, error, _ = both(kind, script, lambda h: h.batch(PROMPTS, 40, idempotency_key="mine"))
    assert isinstance(error, llama_herder.NoReply)
    assert "may have been accepted" in str(error)
    assert "mine" in str(error)


# --- results ---------------------------------------------------------------------------------------------


@BOTH
def test_results_are_read(kind: Kind) -> None:
    script = ended(2, order=[1, 0], statuses={0: "failed"})
    found, error, _ = both(kind, script, lambda h: h.batch_results(BATCH))
    assert error is None
    assert [(r.cursor, r.index, r.status, r.text) for r in found] == [
        (1, 1, "succeeded", "♥ 1\n"),
        (2, 0, "failed", ""),
    ]
    assert found[1].error == llama_herder.JobError("engine_error", "it broke")
    assert (found[0].fee, found[0].captured, found[0].refunded) == (10, 6, 4)
    assert script.seen[0].headers["accept-encoding"] == "identity"
    assert script.requests() == ["GET /batches/batch_1/results 0", "GET /batches/batch_1"]
    assert all(body.closed for body in script.bodies)


@BOTH
@pytest.mark.parametrize("how", [None, httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("")])
def test_wherever_the_line_breaks_every_result_comes_once(kind: Kind, how: Exception | None) -> None:
    script = ended()
    whole = b"".join(line(found) for found in script.results())
    for at in range(len(whole) + 1):
        script.faults = [script.cut(at, how)]
        script.seen.clear()
        found, error, _ = both(kind, script, lambda h: h.batch_results(BATCH))
        assert error is None
        assert [result.index for result in found] == [0, 1, 2]
        assert [dict(result.raw) for result in found] == script.results()


@BOTH
def test_what_comes_twice_is_dropped_and_keep_alives_are_nothing(kind: Kind) -> None:
    script = ended()
    rows = [line(found) for found in script.results()]
    script.faults = [
        lambda request: script.streamed(
            [
                b"\n",
                rows[0],
                rows[0],
                b"\r\n",
                rows[1][:5],
                rows[1][5:] + rows[0],
            ]
        ),
        problem(503, "redis_unavailable"),
        nothing(httpx.ConnectError("refused")),
    ]
    found, error, pauses = both(kind, script, lambda h: h.batch_results(BATCH))
    assert error is None
    assert [result.index for result in found] == [0, 1, 2]
    assert "GET /batches/batch_1/results 2" in script.requests()
    assert len(pauses.taken) >= 2


@BOTH
def test_a_batch_that_still_runs_is_asked_again(kind: Kind) -> None:
    script = ended(2, order=[])

    def finish(request: httpx.Request) -> httpx.Response:
        script.order = None
        return script.whole(request)

    script.faults = [script.whole, script.whole, script.whole, script.whole, finish]
    found, error, pauses = both(kind, script, lambda h: h.batch_results(BATCH))
    assert error is None
    assert len(found) == 2
    assert pauses.taken == [0.25, 0.5]


@BOTH
def test_without_following_it_ends_with_what_there_is(kind: Kind) -> None:
    script = ended(3, order=[2])
    found, error, _ = both(kind, script, lambda h: h.batch_results(BATCH, cursor=0, follow=False))
    assert (error, [result.index for result in found]) == (None, [2])
    assert script.seen[0].url.params["follow"] == "false"
    found, _, _ = both(kind, script, lambda h: h.batch_results(Batch(id=BATCH), cursor=1, follow=False))
    assert found == []
    assert len(script.seen) == 2
    script.faults = [script.cut(20)]
    found, _, _ = both(kind, script, lambda h: h.batch_results(BATCH, follow=False))
    assert len(found) == 1
    assert len(script.seen) == 4


@BOTH
def test_a_herder_that_stays_away_is_given_up(kind: Kind) -> None:
    script = ended()
    script.faults = [script.cut(len(line(script.results()[0])))]
    gone = nothing(httpx.ConnectError("refused"))
    script.faults += [gone] * 1000
    found, error, pauses = both(kind, script, lambda h: h.batch_results(BATCH))
    assert isinstance(error, llama_herder.CannotConnect)
    assert "batch_1 goes on: read on later from cursor 1" in str(error)
    assert len(found) == 1
    assert sum(pauses.taken) == OUTAGE_S


@BOTH
def test_results_that_are_no_longer_kept_are_not_waited_for(kind: Kind) -> None:
    script = ended()
    empty = [lambda request: script.streamed([]), script.whole] * 100
    script.faults = [script.cut(len(line(script.results()[0]))), script.whole, *empty]
    found, error, pauses = both(kind, script, lambda h: h.batch_results(BATCH))
    assert isinstance(error, llama_herder.NotFound)
    assert "from cursor 1 on are no longer kept" in str(error)
    assert len(found) == 1
    assert sum(pauses.taken) < 20


@BOTH
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (problem(404, "not_found"), "it is not_found"),
        (lambda request: httpx.Response(200, json={"id": "x"}), "not with the results of a batch"),
        (lambda request: httpx.Response(204), "not with the results of a batch"),
        (b"<html>\n", "a line is no result"),
        (b'{"index": 1}\n', "a line is no result"),
        (b"[" * 100_000 + b"\n", "a line is no result"),
    ],
)
def test_what_is_no_results_is_an_error(kind: Kind, answer: Fault | bytes, words: str) -> None:
    script = Script()
    script.faults = [(lambda request: script.streamed([answer])) if isinstance(answer, bytes) else answer]
    found, error, _ = both(kind, script, lambda h: h.batch_results(BATCH))
    assert found == []
    assert words in str(error)


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 500), max_size=8))
def test_lines_survive_any_cutting(rows: list[bytes], cuts: list[int]) -> None:
    content = b"".join(row.replace(b"\n", b"") + b"\n" for row in rows) + b"cut"
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    lines = Lines()
    found = [one for start, end in pairwise(edges) for one in lines.feed(content[start:end])]
    assert found == [row for row in (one.replace(b"\n", b"").strip() for one in rows) if row]
    assert lines.cut


@pytest.mark.parametrize("piece", [b"x", b"x" * 60, b"x" * 200 + b"\n"])
def test_a_line_without_an_end_is_refused(piece: bytes) -> None:
    lines = Lines(bytes_max=100)
    with pytest.raises(TooLong):
        [lines.feed(piece) for _ in range(200)]


@BOTH
def test_an_endless_line_of_a_herder_is_an_error(kind: Kind) -> None:
    script = Script()
    script.faults = [lambda request: script.streamed([b"x" * 1_000_000] * 20)]
    _, error, _ = both(kind, script, lambda h: h.batch_results(BATCH))
    assert "longer than" in str(error)
