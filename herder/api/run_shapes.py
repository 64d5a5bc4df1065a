"""What callers get of modules, runs and the store, as pydantic models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from herder.api.shapes import Job
from herder.filling import variables
from herder.modules import Module


class ModuleShown(BaseModel):
    """A module: a prompt template with its defaults."""

    id: str = Field(examples=["fastchat:v0.0.1"])
    name: str
    version: str
    description: str
    model: str | None = Field(description="null: the herd's first")
    template: str
    variables: list[str] = Field(description="of the template; each needs a text")
    parameters: dict[str, str] = Field(description="the texts of those that a run may leave out")
    options: dict[str, Any] = Field(description="of its jobs, where a run does not say otherwise")


class Modules(BaseModel):
    """Every module of this herder."""

    modules: list[ModuleShown]


class RunShown(BaseModel):
    """A run, and the CID of its result once it has ended with an answer: `/ipfs/{cid}/output/result.json`."""

    module: str
    cid: str | None = Field(description="null while it is live, and of one that failed or was cancelled")
    job: Job


class Entry(BaseModel):
    """What is in a folder; `bytes` is null for a folder."""

    name: str
    cid: str
    bytes: int | None


class Folder(BaseModel):
    """A folder of the store."""

    cid: str
    entries: list[Entry]


def module_shown(module: Module) -> ModuleShown:
    """A module as it is shown."""
    return ModuleShown(
        id=module.id,
        name=module.name,
        version=module.version,
        description=module.description,
        model=module.model,
        template=module.template,
        variables=list(variables(module.template)),
        parameters=dict(module.parameters),
        options=dict(module.options),
    )
