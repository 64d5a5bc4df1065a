"""The run of a module: an input becomes a prompt, which is an ordinary job; its answer becomes a folder in the store.

What the result needs beside the text travels in the job's record, so that any herder can put it together. Nothing is
charged for an input that cannot be filled in. Knows no route.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from herder.api.bodies import Amount as Credits
from herder.api.bodies import JobRequest, Milli, Short, Stop, WebhookUrl
from herder.api.options import SAMPLING_FIELDS, SamplingOptions
from herder.api.reading import object_in, validated
from herder.api.state import Herd
from herder.api.strict import Strict, Text, at
from herder.cids import CID_CHARS_MAX, BadCid, NoSuchPath
from herder.dagpb import BadBlock
from herder.errors import InvalidRequest, NotFound, SetupError, StoreUnavailable, TooLarge
from herder.filling import ANSWER, VARIABLES_MAX, Unfilled, chosen, filled
from herder.lifecycle import Status
from herder.modules import Module, load
from herder.pricing import MILLI
from herder.protocol import JobRecord
from herder.reasoning import parted
from herder.settings import Settings
from herder.store import Absent, CannotStore, Store

RESULT_PATH = "output/result.json"
OPTIONS = frozenset({"tokens", "stop", "raw", "system", "ignore_eos", *SAMPLING_FIELDS}) - {"n"}
"""What a module may say of its jobs; what they cost is for who pays."""

Parameters = Annotated[dict[Text, Text], Field(max_length=VARIABLES_MAX)]
Metadata = dict[Annotated[Text, Field(min_length=1)], Text]


class RunInput(Strict):
    """What a module is run on: texts for the variables of its template, or of one that takes its place."""

    template: Text | None = Field(None, description="instead of the module's own; variables are `{name}`")
    parameters: Parameters = Field(default_factory=dict, description="the text of each variable")


class RunRequest(RunInput, SamplingOptions):
    """An input, or the CID of one that is in the store; and what is offered for the answer."""

    cid: Annotated[Text, Field(min_length=1, max_length=CID_CHARS_MAX)] | None = Field(
        None, description="of a JSON file in the store with `parameters` and, if it has one, a `template`"
    )
    tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="the module's own where left out")
    model: Annotated[Short, Field(min_length=1)] | None = Field(
        None, description="instead of the module's own"
    )
    multiplier: Milli = Field(None, description="a bid: times the base fee, 1 or more, to a thousandth")
    fee: Credits | None = Field(None, description="a static offer in credits, at least the base fee")
    max_fee: Credits | None = Field(None, description="the most this run may cost, in credits")
    stop: Stop | None = Field(None, description="the answer ends before the first of these")
    n: Literal[1] = Field(1, description="a run has one answer")
    metadata: Metadata = Field(default_factory=dict, description="comes back with the job")
    webhook_url: WebhookUrl | None = Field(None, description="told when the job ends")

    @model_validator(mode="after")
    def _one_input(self) -> RunRequest:
        if self.cid is not None and self.model_fields_set & {"template", "parameters"}:
            raise at("cid", "the input is there already: leave `template` and `parameters` away")
        return self


class RunJob(JobRequest):
    """The job that a run is."""

    run: str

    @property
    def module_run(self) -> str | None:
        """What the job's record keeps."""
        return self.run


@dataclass(frozen=True)
class Run:
    """What is known of a run besides its answer: the module's id, and what each variable was."""

    module: str
    parameters: Mapping[str, str]

    def as_json(self) -> str:
        """The form in which a job's record keeps it."""
        return json.dumps({"module": self.module, "parameters": dict(self.parameters)}, ensure_ascii=False)


def run_of(record: JobRecord) -> Run:
    """The run that this job is. Raises NotFound for one that is none."""
    if record.run is None:
        raise NotFound(f"job {record.job_id} is no run of a module; it is at /v1/jobs/{record.job_id}")
    told = json.loads(record.run)
    return Run(told["module"], told["parameters"])


def job_of(settings: Settings, module: Module, question: RunInput, body: RunRequest) -> RunJob:
    """The body of the job for this input. Raises InvalidRequest, naming the variable that is missing or unknown."""
    template = module.template if question.template is None else question.template
    try:
        parameters = chosen(template, question.parameters, module.parameters)
        prompt = filled(template, parameters, settings.prompt_bytes_max)
    except Unfilled as error:
        field, message = error.field[:200], str(error)
        raise InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}]) from None
    fields: dict[str, Any] = {"model": module.model, **module.options, **_given(body), "prompt": prompt}
    return validated(RunJob, fields | {"run": Run(module.id, parameters).as_json()}, settings)


def _given(body: RunRequest) -> dict[str, Any]:
    """What a request says of its job; a multiplier as it was sent."""
    ours = {"cid", "template", "parameters"}
    given = {name: getattr(body, name) for name in body.model_fields_set - ours}
    if given.get("multiplier") is not None:
        given["multiplier"] = Decimal(given["multiplier"]) / MILLI
    return {name: value for name, value in given.items() if value is not None}


def installed(settings: Settings) -> dict[str, Module]:
    """The modules of this herder. Raises SetupError for one of which no job could be made."""
    modules = load(settings.modules_dir)
    for module in modules.values():
        strange = sorted(set(module.options) - OPTIONS)
        if strange or "tokens" not in module.options:
            what = f"options.{strange[0]}: no option of a module" if strange else "options.tokens: is missing"
            raise SetupError(f"the module {module.id}: {what}; there are: {', '.join(sorted(OPTIONS))}")
        fields = {**module.options, "model": module.model, "prompt": "x", "run": ""}
        try:
            validated(RunJob, fields, settings)
        except InvalidRequest as error:
            raise SetupError(f"the module {module.id}: options.{error.detail}") from None
    return modules


# --- the store -----------------------------------------------------------------------------------------------


async def input_of(herd: Herd, body: RunRequest) -> RunInput:
    """The input, out of the store where it was named by its CID. Raises NotFound, InvalidRequest, StoreUnavailable."""
    if body.cid is None:
        return RunInput(template=body.template, parameters=body.parameters)
    limit = herd.settings.body_bytes_max
    raw = await asyncio.to_thread(_file, herd.store, body.cid, limit)
    return validated(RunInput, object_in(raw, f"the input {body.cid}"), herd.settings)


def _file(store: Store, cid: str, bytes_max: int) -> bytes:
    found = bytearray()
    try:
        for piece in store.read(store.find(cid)):
            found += piece
            if len(found) > bytes_max:
                raise TooLarge(
                    f"the input {cid} is larger than HERDER_BODY_BYTES_MAX, {bytes_max} bytes",
                    limit=bytes_max,
                )
    except Absent as error:
        raise NotFound(f"cid: {error}; `herder store add` puts a file there") from None
    except (BadCid, NoSuchPath) as error:
        raise InvalidRequest(f"cid: {error}", errors=[{"field": "cid", "message": str(error)}]) from None
    except BadBlock as error:
        raise StoreUnavailable(f"cid: {error}") from None
    return bytes(found)


async def stored(herd: Herd, record: JobRecord) -> str | None:
    """Put the result of a run into the store, the same each time; its CID. None for a run that has no answer (yet).

    Raises NotFound for what is no run, StoreUnavailable.
    """
    run = run_of(record)
    if record.status is not Status.SUCCEEDED or record.text is None:
        return None
    answer = {**run.parameters, ANSWER: parted(record.marks, record.text).text}
    content = json.dumps(answer, ensure_ascii=False).encode()
    try:
        name = f"{run.module} {record.job_id}"
        link = await asyncio.to_thread(herd.store.add_tree, {RESULT_PATH: content}, name)
    except CannotStore as error:
        raise StoreUnavailable(f"the answer is there, and its result cannot be stored: {error}") from None
    return str(link.cid)
