"""The words of an error for every kind of reader: RFC 9457, OpenAI's clients, and those that want one text. Pure.

Which is spoken depends on the address alone: other people's clients have addresses of their own. Knows no route.
"""

from __future__ import annotations

from typing import Any

from herder.errors import HerderError

PROBLEM = "application/problem+json"
PLAIN = "application/json"
# Where TGI's and Ollama's clients call: their `error` is a text.
_TEXT_PATHS = ("/", "/generate", "/generate_stream", "/tgi")
_TEXT_PREFIXES = ("/tgi/", "/api/")
# OpenAI answers 400 where other APIs say 422, and its client has an exception for each; Lamini's takes a 422 for its
# own age, and says so instead of what is wrong.
_OPENAI_PATHS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/inf/chat/completions",
    "/v1/streaming_completions",
    "/v3/streaming_completions",
    "/v1/batch_completions",
    "/tgi/v1/chat/completions",
)
_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    409: "conflict_error", 429: "rate_limit_error", 500: "server_error", 503: "overloaded_error",
}  # fmt: skip
_CODES = {"context_exceeded": "context_length_exceeded", "unknown_model": "model_not_found"}
_TEXT_ONLY = "the models of this herd read and write text"
_NO_VECTORS = "the models of this herd write text, they make no embeddings"
_CHAT = "send the whole chat to /v1/chat/completions"
_BROUGHT = "models come and go with the workers that have them"
_NOT_TRAINED = "models are not trained here"
# What their clients have calls for and nobody serves here, and why.
_NOT_SERVED = {
    "/v1/embeddings": _NO_VECTORS, "/api/embed": _NO_VECTORS, "/api/embeddings": _NO_VECTORS,
    "/v1/responses": _CHAT, "/v1/conversations": _CHAT, "/v1/assistants": _CHAT, "/v1/threads": _CHAT,
    "/v1/images": _TEXT_ONLY, "/v1/audio": _TEXT_ONLY, "/v1/videos": _TEXT_ONLY, "/v1/realtime": _TEXT_ONLY,
    "/v1/moderations": _TEXT_ONLY,
    "/v1/uploads": "send the file to /v1/files",
    "/v1/vector_stores": "search in your own texts, and put what is found into the prompt",
    "/api/pull": _BROUGHT, "/api/push": _BROUGHT, "/api/create": _BROUGHT, "/api/copy": _BROUGHT,
    "/api/delete": _BROUGHT, "/api/blobs": _BROUGHT,
    "/v1/fine_tuning": _NOT_TRAINED, "/v1/train": _NOT_TRAINED,
}  # fmt: skip
# Its client tries these again unless it is told not to; asked again, they come to the same.
FINAL = (402, 409)


def status_at(error: HerderError, path: str) -> int:
    """The HTTP status of an error at this address."""
    return 400 if error.status == 422 and path in _OPENAI_PATHS else error.status


def nothing_at(path: str) -> str:
    """What is said of an address that nobody serves."""
    for address, why in _NOT_SERVED.items():
        if path == address or path.startswith(f"{address}/"):
            return f"{address} is not served here: {why}"
    return "there is nothing at this address; see /docs"


def in_a_text(path: str) -> bool:
    """Whether readers at this address want `error` to be a text."""
    return path in _TEXT_PATHS or path.startswith(_TEXT_PREFIXES)


def as_openai(error: HerderError) -> dict[str, Any]:
    """What OpenAI's clients read: `message`, `type`, `param` (the first field that is wrong) and `code`."""
    faults = error.extra.get("errors") or ()
    return {
        "message": error.detail,
        "type": _TYPES.get(error.status, "invalid_request_error"),
        "param": faults[0]["field"] or None if faults else None,
        "code": _CODES.get(error.code, error.code),
    }


def as_text(error: HerderError) -> dict[str, Any]:
    """What TGI's and Ollama's clients read. TGI's has an exception for a type that it knows, else for the status."""
    kinds = {422: "validation", 503: "overloaded"}
    return {"error": error.detail, "error_type": kinds.get(error.status, error.code)}
