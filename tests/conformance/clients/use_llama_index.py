"""The `llama-index-llms-openai-like` package."""

from __future__ import annotations

import openai
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike


def _llm(
    key: str = KEY, url: str = URL, model: str = MODEL, length: int = 12, *, chat: bool = True
) -> OpenAILike:
    return OpenAILike(
        model=model, api_base=f"{url}/v1", api_key=key, max_tokens=length, max_retries=0,
        is_chat_model=chat, context_window=512,
    )  # fmt: skip


ASK = [ChatMessage(role="user", content="What is a llama?")]


@check("completion")
def completion() -> None:
    assert isinstance(_llm(chat=False).complete("Once upon a time").text, str)


@check("chat")
def chat() -> None:
    assert _llm().chat(ASK).message.role == "assistant"


@check("stream")
def stream() -> None:
    parts = list(_llm().stream_chat(ASK))
    assert parts[-1].message.content == _llm().chat(ASK).message.content
    texts = list(_llm(chat=False).stream_complete("Once upon a time"))
    assert texts[-1].text == _llm(chat=False).complete("Once upon a time").text


@check("stop")
def stop() -> None:
    free = _llm(length=30, chat=False).complete("Once upon a time").text
    word = free.split()[1]
    found = _llm(length=30, chat=False).complete("Once upon a time", stop=[word]).text
    assert found == free.partition(word)[0]


@check("20 at once")
def twenty() -> None:
    assert len(at_once(lambda i: _llm().complete(f"Number {i}").text)) == 20


@check("400")
def bad_request() -> None:
    raises(openai.BadRequestError, lambda: _llm(length=100_000).chat(ASK))


@check("401")
def wrong_key() -> None:
    raises(openai.AuthenticationError, lambda: _llm(WRONG_KEY).chat(ASK))


@check("402")
def no_credits() -> None:
    error = raises(openai.APIStatusError, lambda: _llm(POOR_KEY).chat(ASK))
    assert "credits" in str(error), error


@check("404")
def no_model() -> None:
    raises(openai.NotFoundError, lambda: _llm(model="no/such-model").chat(ASK))


@check("429")
def too_many() -> None:
    raises(openai.RateLimitError, lambda: _llm(BUSY_KEY, BUSY_URL).chat(ASK))


main()
