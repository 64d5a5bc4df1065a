"""`Init`, the admin's AO message: which waiting worker gets the model, and what comes back when it cannot serve it."""

from __future__ import annotations

import asyncio

from herder.settings import Settings
from herder.waiting import Waiting
from tests.integration.api import WORKER, open_front, problem


async def test_an_administrator_gives_a_waiting_worker_its_model(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"wait_s_max": 1}), worker=False) as front:
        init = {"Target": "w9", "Action": "Init", "Model-ID": "herd-tiny"}
        problem(await front.client.post("/ao/messages", json=init), 403, "forbidden")
        found = problem(await front.admin.post("/ao/messages", json=init), 404, "not_found")
        assert "does not wait" in found["detail"]
        problem(await front.admin.post("/ao/messages", json=init | {"Target": ""}), 404, "not_found")
        door = Waiting(front.herd.broker)
        assert await door.wait(WORKER) is None
        found = problem(await front.admin.post("/ao/messages", json=init), 404, "not_found")
        assert WORKER in found["detail"]
        bad = await front.admin.post("/ao/messages", json=init | {"Target": WORKER, "Model-ID": "a,b"})
        assert problem(bad, 422, "invalid_request")["errors"][0]["field"] == "Model-ID"
        init = {"Target": "llama-herder", "Action": "Init", "ModelID": "herd-tiny"}
        asked = asyncio.create_task(front.admin.post("/ao/messages", json=init))
        while (model := await door.wait(WORKER)) is None:
            pass
        assert model == "herd-tiny"
        await front.worker()
        (told,) = (await asked).json()["messages"]
        assert (told["Action"], told["X-Worker"], told["Target"]) == ("Worker-Initialized", WORKER, "root")
        again = await front.admin.post("/ao/messages", json=init | {"Target": WORKER})
        assert [each["Action"] for each in again.json()["messages"]] == ["Worker-Initialized"]
        other = init | {"Target": WORKER, "ModelID": "other.gguf"}
        problem(await front.admin.post("/ao/messages", json=other), 409, "conflict")


async def test_a_model_that_cannot_be_served_is_told_to_the_administrator(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"wait_s_max": 1})) as front:
        door = Waiting(front.herd.broker)
        await door.wait("w9")
        init = {"Target": "w9", "Action": "Init", "Model-ID": "none.gguf"}
        reply = await front.admin.post("/ao/messages", json=init)
        assert (reply.status_code, reply.json()["messages"]) == (202, [])
        assert await door.wait("w9") == "none.gguf"
        await door.failed("w9", "none.gguf: no such file")
        found = problem(await front.admin.post("/ao/messages", json=init), 422, "invalid_request")
        assert found["detail"] == "Model-ID: none.gguf: no such file"
        other = init | {"Target": WORKER}
        problem(await front.admin.post("/ao/messages", json=other), 409, "conflict")
