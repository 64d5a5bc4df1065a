"""`herder demo`: a herd for a minute. Starts it in a folder of its own, pays for one prompt, shows the bill, stops."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import httpx

from herder.settings import Settings
from herder.up import Herd

QUESTION = "What is a chatbot?"
TOKENS = 60
ANSWER_S = 60.0


async def run(settings: Settings, question: str = QUESTION, tokens: int = TOKENS) -> int:
    """The demo; 0 when the answer came and the bill adds up."""
    print(
        "Starting a herd: Redis, the API, the courier and one worker, each a process of its own …", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="herd-demo-") as folder:
        quiet = {"redis_url": "", "port": 0, "host": "127.0.0.1", "workers": 1, "model": ("herd-tiny",)}
        settings = settings.model_copy(update={"data_dir": Path(folder), "log_level": "warning", **quiet})
        said: list[str] = []
        herd = Herd(settings, lambda name, line: said.append(f"{name}: {line}"))
        try:
            await herd.start()
        except BaseException:
            print(*said, sep="\n", flush=True)
            raise
        try:
            assert herd.keys is not None
            print(f"Ready at {herd.url}\n", flush=True)
            async with httpx.AsyncClient(
                base_url=herd.url,
                headers={"Authorization": f"Bearer {herd.keys.demo_key}"},
                timeout=ANSWER_S,
                trust_env=False,
            ) as client:
                return await _prompt(client, question, tokens)
        finally:
            print("\nStopping the herd …", flush=True)
            await herd.stop()
            print("Stopped. Start one that stays with: make up", flush=True)


async def _prompt(client: httpx.AsyncClient, question: str, tokens: int) -> int:
    """One paid prompt, from submission to the bill."""
    body = {"prompt": question, "tokens": tokens}
    submitted = (await client.post("/v1/jobs", json=body)).raise_for_status().json()
    print(f"prompt    {question}")
    print(
        f"submitted {submitted['id']}: {submitted['fee']} credits held for up to {tokens} tokens", flush=True
    )
    deadline = asyncio.get_running_loop().time() + ANSWER_S
    job = submitted
    while job["ended_ms"] is None and asyncio.get_running_loop().time() < deadline:
        job = (await client.get(f"/v1/jobs/{job['id']}", params={"wait": 30})).raise_for_status().json()
    if job["status"] != "succeeded":
        print(f"the job is {job['status']}: {job['error']}")
        return 1
    account = (await client.get("/v1/account")).raise_for_status().json()
    result = job["result"]
    print(f"answer    {result['text']}")
    print(f"tokens    {result['completion_tokens']} of {tokens}, finished by {result['finish_reason']}")
    print(f"fee       {job['captured']} credits captured")
    print(f"refund    {job['refunded']} credits for tokens that were not needed")
    print(f"balance   {account['available']} credits (held: {account['held']})")
    print(
        "\nThis answer comes from herd-tiny, a toy model of a few megabytes that ships with the herd so that"
    )
    print("it runs anywhere. For real answers, give a GGUF file: herder up --model path/to/model.gguf")
    print("or one from the Hugging Face Hub:                     herder up --model hf:owner/repo/file.gguf")
    return 0 if job["captured"] + job["refunded"] == job["fee"] else 1
