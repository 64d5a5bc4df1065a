"""The OpenAPI document: what FastAPI cannot know of our bodies, keys and limits is written in here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from herder.api.problems import Problem, declared
from herder.errors import InvalidRequest
from herder.settings import Settings

DESCRIPTION = """
A paid queue in front of language models: pay a little more, be served a little sooner.

1. `POST /v1/jobs` holds the fee and answers 202 with an id.
2. `GET /v1/jobs/{id}?wait=30` waits for the answer.
3. What the answer does not use of the fee goes back.

`fee = ceil((set_prompt_fee + fee_per_token × tokens) × multiplier)`, in credits. Every error is an
`application/problem+json` document with a stable `code`; every response carries `x-request-id`.
"""

TAGS = [
    {"name": "jobs", "description": "Prompts, paid for and answered."},
    {"name": "batches", "description": "Many prompts in one call, paid for at once."},
    {"name": "herd", "description": "What there is, and what it costs."},
    {"name": "accounts", "description": "The account of the key that is used."},
    {"name": "webhooks", "description": "Where the ends of jobs and batches are told, and what came of it."},
    {
        "name": "modules",
        "description": "Prompt templates that are run by name, and what comes of it, by its CID.",
    },
    {"name": "admin", "description": "All accounts; needs an admin key."},
    {"name": "operations", "description": "For whoever runs the herd; no key."},
]

EXAMPLES: dict[str, dict[str, Any]] = {
    "JobRequest": {
        "prompt": {"summary": "the automatic price", "value": {"prompt": "Name three colours.", "tokens": 64}},
        "bid": {
            "summary": "a bid with a ceiling",
            "value": {
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
                "tokens": 32, "multiplier": 1.5, "max_fee": 100,
            },
        },
        "fee": {
            "summary": "a static fee, stop strings, sampling",
            "value": {
                "prompt": "Once upon a time", "raw": True, "tokens": 100, "fee": 250, "stop": ["\n\n"],
                "temperature": 0.7, "top_p": 0.9, "seed": 7, "metadata": {"story": "12"},
            },
        },
    },
    "BatchRequest": {
        "prompts": {
            "summary": "many texts, one set of options",
            "value": {"prompts": ["Name three colours.", "Name three animals."], "tokens": 40, "max_fee": 200},
        },
        "items": {
            "summary": "items of their own",
            "value": {
                "items": [
                    {"custom_id": "a", "prompt": "Name three colours."},
                    {"custom_id": "b", "messages": [{"role": "user", "content": "Hello!"}], "tokens": 20},
                ],
                "tokens": 40, "charge": "as_many_as_affordable", "metadata": {"run": "7"},
            },
        },
    },
    "QuoteRequest": {"bid": {"value": {"prompt": "Name three colours.", "tokens": 64, "multiplier": 2}}},
    "AccountRequest": {"account": {"value": {"id": "alice", "credits": 10000}}},
    "DepositRequest": {"deposit": {"value": {"amount": 5000, "deposit_id": "invoice-17", "memo": "invoice 17"}}},
    "AdjustRequest": {"correction": {"value": {"amount": -100, "memo": "paid twice"}}},
    "EndpointRequest": {"endpoint": {"value": {"url": "https://example.com/hooks/herd"}}},
    "DefaultRequest": {
        "default": {"value": {"url": "https://example.com/hooks/herd"}},
        "none": {"value": {"url": None}},
    },
    "RunRequest": {
        "parameters": {"value": {"parameters": {"question": "What is a chatbot?"}, "max_fee": 500}},
        "cid": {"value": {"cid": "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt", "tokens": 40}},
    },
    "KeyRequest": {"key": {"value": {"role": "client", "label": "laptop"}}},
}  # fmt: skip

_BODIES: dict[str, type[BaseModel]] = {}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `model` by itself."""
    _BODIES[model.__name__] = model
    content = {
        "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": EXAMPLES[model.__name__],
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def install(app: FastAPI, settings: Settings) -> None:
    """Let the app answer with the whole document; it is made once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(
        title="Llama-Herder", version=app.version, description=DESCRIPTION, tags=TAGS, routes=app.routes
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: list[type[BaseModel]] = [Problem, *_BODIES.values()]
    for model in models:
        written = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(written.pop("$defs", {}))
        schemas[model.__name__] = written
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _limits(schemas, settings)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer hk_…`"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "basic": {"type": "http", "scheme": "basic", "description": "the key as the password"},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith(("/v1/", "/ipfs/")):
                operation["security"] = [{"bearer": []}, {"header": []}, {"basic": []}]
            _without_fastapis_own(operation["responses"])
            if method == "get" and "operations" not in operation.get("tags", ()):
                # Of a query parameter that the route does not have.
                operation["responses"].setdefault("422", declared(InvalidRequest, key=False)[422])
            for response in operation["responses"].values():
                response.setdefault("headers", {})["x-request-id"] = {"schema": {"type": "string"}}
    return document


def _without_fastapis_own(responses: dict[str, Any]) -> None:
    """FastAPI adds its 422 wherever there is a parameter; ours are declared where they can occur."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]


def _limits(schemas: dict[str, Any], settings: Settings) -> None:
    """The caps that are settings, as this herd has them."""
    for name in ("JobRequest", "QuoteRequest", "BatchRequest", "BatchItem"):
        properties = schemas[name]["properties"]
        _narrow(properties["tokens"], "integer", maximum=settings.tokens_max)
        _narrow(properties["multiplier"], "number", maximum=settings.multiplier_max)
        _narrow(properties["stop"], "array", maxItems=settings.stop_strings_max)
        _narrow(properties["metadata"], "object", maxProperties=settings.metadata_max)
        if "prompt" in properties:
            _narrow(properties["prompt"], "string", maxLength=settings.prompt_bytes_max)
    for name in ("prompts", "items"):
        _narrow(schemas["BatchRequest"]["properties"][name], "array", maxItems=settings.batch_items_max)


def _narrow(schema: dict[str, Any], kind: str, **limits: float) -> None:
    if schema.get("type") == kind:
        schema.update(limits)
    for option in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        _narrow(option, kind, **limits)
