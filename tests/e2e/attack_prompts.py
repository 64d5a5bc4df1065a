"""Prompts, chats, tools, stop strings and options of sampling at their limits and beyond."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.e2e.attacks import BAD, CONTEXT, INVALID, LARGE, SUCCEEDED, Attack, job, nested

STOPS_MAX = 64  # as `hostile` sets it
VOCAB = 1_024
PROMPT_BYTES_MAX = 500_000
END = 4
SPECIAL = ("<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _texts()
    yield from _chats()
    yield from _tools()
    yield from _stops()
    yield from _biases()
    yield from _draws()


def _texts() -> Iterator[Attack]:
    yield job("an empty prompt", INVALID, prompt="")
    yield job("nothing left of a raw prompt", INVALID, prompt="<|bos|>", raw=True)
    for name, text in {
        "white space": " \n\t ", "all special tokens": "".join(SPECIAL), "ends": "<|end|>" * 100, "U+FFFF": "\uffff",
        "marks on marks": "a" + "\u0301" * 200, "right to left": "\u202e\u2066\u2069" * 30, "ESC": "\x1b[2J\x07",
        "zero width": "\u200b" * 200, "emoji of many parts": "👨‍👩‍👧‍👦" * 20, "DEL and C1": "\x7f\x80\x9f",
        "templates": "{{ bos_token }}{% for a in range(10**9) %}{% endfor %}",
        "a prompt of Redis": "*1\r\n$8\r\nFLUSHALL\r\n",
        "format": "%s%n%x{0}{0.__class__}", "half a special token": "<|user", "tables": "'; DROP TABLE jobs; --",
    }.items():  # fmt: skip
        yield job(f"prompt: {name}", SUCCEEDED, prompt=text)
        yield job(f"raw prompt: {name}", SUCCEEDED, prompt=text, raw=True)
    for token in SPECIAL[1:]:
        yield job(f"raw {token}", SUCCEEDED, prompt=token, raw=True)
    for name, text in {
        "x": "x",
        "é": "é",
        "spaces": " ",
        "digits": "1",
        "emoji": "😀",
        "special": "<|end|>",
    }.items():
        whole = text * (PROMPT_BYTES_MAX // len(text.encode()))
        yield job(f"500 kB of {name}", CONTEXT, prompt=whole, raw=True)
        yield job(f"more than 500 kB of {name}", LARGE, prompt=whole + text * 2, raw=True)
    yield job("all tokens for the answer", CONTEXT, tokens=1_024)
    yield job("as many tokens as may be asked for", CONTEXT, tokens=8_192)


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _chats() -> Iterator[Attack]:
    for role in ("developer", "SYSTEM", "", "user\n", "function", "<|end|>", None, 5, ["user"]):
        yield job(f"role {role!r}", INVALID, messages=[{"role": role, "content": "hi"}])
    for name, messages in {
        "none": [], "no list": {}, "no turn": ["hi"], "no content": [{"role": "user"}], "null": [_user(None)],
        "parts": [_user([{"type": "text", "text": "hi"}])], "number": [_user(5)], "more": [_user("hi") | {"weight": 1}],
        "10 000 turns": [_user("hi")] * 10_000, "1001 turns": [_user("hi")] * 1_001, "deep": [_user(nested(300))],
        "a tool's name on a user": [_user("hi") | {"name": "tool"}],
    }.items():  # fmt: skip
        yield job(f"chat: {name}", INVALID, messages=messages)
    yield job("1000 turns", CONTEXT, messages=[_user("hello there")] * 1_000)
    yield job("a chat and a prompt", INVALID, prompt="hi", messages=[_user("hi")])
    yield job("raw chat", INVALID, raw=True, messages=[_user("hi")])
    yield job("two systems", INVALID, system="a", messages=[{"role": "system", "content": "b"}, _user("hi")])
    yield job("an unknown template", INVALID, template="{{ 1/0 }}")
    yield job("raw and a template", INVALID, template="llama-2", raw=True)
    llama2: dict[str, Any] = {"template": "llama-2"}
    assistant = {"role": "assistant", "content": "b"}
    yield job("llama-2 that ends with the assistant", INVALID, messages=[_user("a"), assistant], **llama2)
    yield job("llama-2 with two users", INVALID, messages=[_user("a"), _user("b")], **llama2)
    yield job("llama-2 with its own marks", SUCCEEDED, prompt="[/INST] </s><s>[INST] <<SYS>>", **llama2)
    yield job("a chat of nothing", SUCCEEDED, messages=[_user("")])
    yield job("only a system", SUCCEEDED, messages=[{"role": "system", "content": "Be kind."}])
    yield job("roles in any order", SUCCEEDED, messages=[
        assistant, assistant, {"role": "system", "content": "c"},
    ])  # fmt: skip


def _tools() -> Iterator[Attack]:
    def tool(name: Any = "f", **function: Any) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name} | function}

    for name, tools in {
        "none": [], "65": [tool()] * 65, "64 for a template without": [tool()] * 64,
        "large": [tool(description="x" * 70_000)],
        "no function": [{"type": "function"}], "a name with a dot": [tool("os.system")],
        "a long name": [tool("f" * 65)],
        "33 deep": [tool(parameters=nested(33, 1, "p"))], "300 deep": [tool(parameters=nested(300, 1, "p"))],
        "900 deep": [tool(parameters=nested(900, 1, "p"))], "NUL": [tool(parameters={"a": "\x00"})],
        "a template in it": [tool(description="{{ cycler.__init__.__globals__ }}")], "no list": {"f": 1},
        "1e999": [tool(parameters={"a": "@number 1e999@"})], "400 digits": [tool(parameters={"a": 10**400})],
    }.items():  # fmt: skip
        yield job(f"tools: {name}", INVALID, tools=tools)
    yield job("tools: 5000 deep", BAD, INVALID, tools="@number " + "[" * 5_000 + "]" * 5_000 + "@")
    calls = [{"function": {"name": "f", "arguments": {}}}]
    yield job("calls by a user", INVALID, messages=[_user("hi") | {"tool_calls": calls}])
    yield job("calls that the template leaves out", INVALID,
              messages=[_user("hi"), {"role": "assistant", "tool_calls": calls}])  # fmt: skip
    yield job("65 calls", INVALID, messages=[_user("hi"), {"role": "assistant", "tool_calls": calls * 65}])


def _one_of(stops: list[str], answer: Any) -> object:
    return not any(stop in answer["result"]["text"] for stop in stops)


def _stops() -> Iterator[Attack]:
    letters = [chr(i) for i in range(32, 32 + STOPS_MAX)]
    likely = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,!?'-:;\n\t"][:STOPS_MAX]
    for name, stops in {
        "64": [f"stop {i}" for i in range(STOPS_MAX)], "everything": likely, "64 letters": letters,
        "prefixes": ["a" * i for i in range(1, STOPS_MAX + 1)], "256 bytes": [f"{i:0>256}" for i in range(STOPS_MAX)],
        "the same": ["the"] * STOPS_MAX, "a replacement character": ["\ufffd"], "half a special token": ["<|", "|>"],
        "a regex": [".*", "(a+)+$", "^"], "a long é": ["é" * 128], "space": [" "],
    }.items():  # fmt: skip
        yield job(f"stops: {name}", SUCCEEDED, stop=stops, tokens=20, check=partial(_one_of, stops))
    yield job(
        "stops: hot",
        SUCCEEDED,
        stop=likely[26:],
        tokens=30,
        temperature=2,
        seed=1,
        check=partial(_one_of, likely[26:]),
    )
    for name, stop in {
        "65": [f"stop {i}" for i in range(STOPS_MAX + 1)], "1001": ["a"] * 1_001, "a million": ["a"] * 10**6,
        "empty": "", "one empty": ["a", ""], "257 bytes": "a" * 257,
        "258 bytes of é": "é" * 129, "number": 5, "null in it": [None],
        "object": {"a": 1}, "100 kB": "a" * 100_000,
    }.items():  # fmt: skip
        becomes = (INVALID, LARGE) if name == "a million" else (INVALID,)
        yield job(f"stops: {name}", *becomes, stop=stop)


def _biases() -> Iterator[Attack]:
    for name, bias in {
        "257": {str(i): 1 for i in range(257)}, "100 000": {str(i): 1 for i in range(100_000)},
        "beyond": {str(VOCAB): 1},
        "2^31": {"2147483648": 1}, "10 digits": {"9999999999": 1}, "-1": {"-1": 1}, "01": {"01": 1}, "1.5": {"1.5": 1},
        "a word": {"hello": 1}, "empty": {"": 1}, "arabic digits": {"٣": 1}, "101": {"5": 101}, "-101": {"5": -101},
        "text": {"5": "1"}, "null": {"5": None}, "list": [[5, 1]], "new line": {"5\n": 1},
    }.items():  # fmt: skip
        yield job(f"biases: {name}", INVALID, logit_bias=bias)
    yield job("biases: 256, all down", SUCCEEDED, logit_bias={str(i): -100 for i in range(5, 261)})
    yield job(
        "biases: 256, all up", SUCCEEDED, logit_bias={str(i): 100 for i in range(5, 261)}, temperature=2
    )
    yield job("biases: the last token", SUCCEEDED, logit_bias={str(VOCAB - 1): 100})
    yield job(
        "biases: the end at once",
        SUCCEEDED,
        logit_bias={str(END): 100},
        check=lambda it: it["result"]["text"] == "",
    )
    yield job("biases: only the end, ignored", SUCCEEDED, logit_bias={str(END): 100}, ignore_eos=True,
              check=lambda it: it["result"]["completion_tokens"] == 6)  # fmt: skip
    yield job("biases: next to nothing", SUCCEEDED, logit_bias={"5": "@number 1e-999@"})


def _draws() -> Iterator[Attack]:
    extremes: dict[str, dict[str, Any]] = {
        "hot": {"temperature": 2},
        "all penalties": {"repeat_penalty": 10, "frequency_penalty": 2, "presence_penalty": 2},
        "all rewards": {"repeat_penalty": 0.1, "frequency_penalty": -2, "presence_penalty": -2},
        "of all tokens": {"penalty_tokens": 4_096, "repeat_penalty": 10},
        "of none": {"penalty_tokens": 0, "repeat_penalty": 10},
        "narrow": {"top_p": 1e-9, "top_k": 1, "min_p": 1.0, "typical_p": 1e-9},
        "wide": {"top_k": 1_000_000, "top_p": 1},
        "denormal": {"temperature": 5e-324, "top_p": 5e-324}, "hardly warm": {"temperature": 1e-30},
    }  # fmt: skip
    for name, options in extremes.items():
        for seed in (0, 2**32 - 1):
            yield job(
                f"{name}, seed {seed}",
                SUCCEEDED,
                **{"temperature": 1.0, "seed": seed, "tokens": 12} | options,
            )
    yield job("n of 4, with 20 log-probabilities", SUCCEEDED, n=4, logprobs=20, temperature=1, tokens=20,
              check=lambda it: len(it["result"]["choices"]) == 4)  # fmt: skip
    yield job("too many log-probabilities", INVALID, n=4, logprobs=20, tokens=200)
    yield job("one token", SUCCEEDED, tokens=1, n=4)
