"""Files for batches, in OpenAI's words: kept, listed, read, deleted; what is none; and whatever may be in one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from herder.settings import Settings
from tests.integration.api import Front, open_front, problem
from tests.integration.file_calls import batch, chat, upload


async def test_a_file_is_kept_listed_read_and_deleted(front: Front) -> None:
    first, second = [(await upload(front, chat(name))).json() for name in "ab"]
    assert (first["object"], first["purpose"], first["filename"]) == ("file", "batch", "asked.jsonl")
    assert first["status"] == "processed"
    assert first["expires_at"] - first["created_at"] == 86_400
    assert (await front.client.get(f"/v1/files/{first['id']}")).json() == first
    text = (await front.client.get(f"/v1/files/{first['id']}/content")).content
    assert (json.loads(text), len(text)) == (chat("a"), first["bytes"])
    large = (await upload(front, chat("c", "".join(map(str, range(40_000)))))).json()
    text = (await front.client.get(f"/v1/files/{large['id']}/content")).content
    assert (json.loads(text)["custom_id"], len(text)) == ("c", large["bytes"])
    await front.client.delete(f"/v1/files/{large['id']}")
    listed = (await front.client.get("/v1/files", params={"purpose": "batch", "limit": 1})).json()
    assert ([each["id"] for each in listed["data"]], listed["has_more"]) == ([second["id"]], True)
    rest = (await front.client.get("/v1/files", params={"after": second["id"]})).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([first["id"]], False)
    gone = (await front.client.delete(f"/v1/files/{first['id']}")).json()
    assert gone == {"id": first["id"], "object": "file", "deleted": True}
    for url in (
        f"/v1/files/{first['id']}",
        f"/v1/files/{first['id']}/content",
        "/v1/files/x",
        "/v1/files/file-9",
    ):
        problem(await front.client.get(url), 404, "not_found")
    problem(await front.client.delete(f"/v1/files/{first['id']}"), 404, "not_found")
    async with await front.account("bob", 0) as bob:
        for route in (bob.get, bob.delete):
            problem(await route(f"/v1/files/{second['id']}"), 404, "not_found")
        assert (await bob.get("/v1/files")).json()["data"] == []
    problem(await front.anonymous.get("/v1/files"), 401, "missing_key")


async def test_what_is_no_such_file_is_refused(settings: Settings) -> None:
    small = settings.model_copy(update={"batch_bytes_max": 3_000, "files_bytes_max": 1_000})
    async with open_front(small) as front:
        for form, field in (
            ({"purpose": "fine-tune"}, "purpose"),
            ({"expires_after[seconds]": "9"}, "expires_after"),
        ):
            found = problem(await upload(front, chat("a"), **form), 422, "invalid_request")
            assert found["errors"][0]["field"].startswith(field)
        assert problem(await upload(front, "\n"), 422, "invalid_request")["errors"][0]["field"] == "file"
        bare = await front.client.post("/v1/files", data={"purpose": "batch"})
        problem(bare, 400, "bad_request")
        broken = {"content-type": "multipart/form-data; boundary=x"}
        for content in (b"nonsense", b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--\r\n"):
            problem(await front.client.post("/v1/files", content=content, headers=broken), 400, "bad_request")
        broken = {"content-type": "multipart/form-data"}
        problem(await front.client.post("/v1/files", content=b"x", headers=broken), 400, "bad_request")
        problem(await upload(front, "x" * 4_000), 413, "too_large")
        kept = await upload(
            front, chat("a"), **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
        )
        assert kept.json()["expires_at"] - kept.json()["created_at"] == 3600
        long = await upload(front, chat("a"), **{"expires_after[seconds]": "2592000"})
        assert long.json()["expires_at"] - long.json()["created_at"] == small.result_ttl_ms // 1000 < 2592000
        while (full := await upload(front, chat("a", "".join(map(str, range(300)))))).status_code == 200:
            pass
        assert "HERDER_FILES_BYTES_MAX" in problem(full, 422, "invalid_request")["detail"]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 300), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
_FIELDS = st.sampled_from(
    [
        "messages",
        "prompt",
        "max_tokens",
        "n",
        "tools",
        "tool_choice",
        "stop",
        "model",
        "service_tier",
        "response_format",
    ]
)
_BODIES = st.dictionaries(_FIELDS, _JSON, max_size=3)


def test_no_file_is_a_500_or_loses_a_credit(settings: Settings) -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        front = runner.run(stack.enter_async_context(open_front(settings, credits_=10**9)))
        seen: set[int] = set()

        @given(
            body=_BODIES, line=st.dictionaries(st.sampled_from(["custom_id", "method", "url", "body"]), _JSON)
        )
        @examples(max_examples=120, suppress_health_check=list(HealthCheck))
        def tried(body: dict[str, Any], line: dict[str, Any]) -> None:
            reply = runner.run(batch(front, chat("a", **body) | line))
            seen.add(reply.status_code)
            assert reply.status_code < 500, reply.text
            assert sum(runner.run(front.balances())) == 10**9

        with contextlib.ExitStack() as quiet:
            quiet.callback(lambda: runner.run(stack.aclose()))
            tried()
            assert {200, 422} <= seen
