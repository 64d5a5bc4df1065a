"""Calls about modules and what they have made. Knows no command line; what is in an input, the herder judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_herder._calls import keyed, may_be_there, part
from llama_herder._core import Call, Send
from llama_herder._json import FromJson, Page, page_of
from llama_herder.problems import InvalidRequest
from llama_herder.types import Job

RESULT_PATH = "output/result.json"


@dataclass(frozen=True)
class Module(FromJson):
    """A prompt template that is run by its id, such as `fastchat:v0.0.1`."""

    id: str = ""
    description: str = ""
    model: str | None = None
    template: str = ""
    variables: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModuleRun(FromJson):
    """A run as it is now; `cid` is that of its result, once there is one."""

    module: str = ""
    cid: str | None = None


def modules() -> Call[Page[Module]]:
    """The modules of the herd."""
    return Call(Send("GET", "/v1/modules"), page_of("modules", Module.from_json))


def submit(module: str, body: Mapping[str, Any], idempotency_key: str | None = None) -> Call[Job]:
    """Pay for a run; repeatable, as a job is. Raises InvalidRequest for what is no name and version."""
    name, colon, version = module.partition(":")
    if not (name and colon and version):
        raise InvalidRequest(f"a module is a name and a version, such as fastchat:v0.0.1, not {module!r}")
    path = f"/v1/modules/{part(name)}:{part(version)}/runs"
    headers = keyed(idempotency_key)
    return Call(
        Send("POST", path, body=body, headers=headers), Job.from_json, unsure=may_be_there("run", headers)
    )


def run(job_id: str) -> Call[ModuleRun]:
    """A run as it is now; one that has an answer is put into the herd's store by this."""
    return Call(Send("GET", f"/v1/modules/runs/{part(job_id)}"), ModuleRun.from_json)


def result(cid: str) -> Call[dict[str, Any]]:
    """What a run has made: its parameters, and the answer as `text`."""
    return Call(Send("GET", f"/ipfs/{part(cid)}/{RESULT_PATH}"), dict)
