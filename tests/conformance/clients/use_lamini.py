"""The `lamini` package in its three generations: runners are in 2.x only, polling streams of two kinds."""

from __future__ import annotations

import json
import os
import subprocess

os.environ["LAMINI_API_KEY"] = os.environ["CONFORMANCE_KEY"]
os.environ["LAMINI_API_URL"] = os.environ["CONFORMANCE_URL"]

import lamini
from checking import BUSY_KEY, BUSY_URL, KEY, MODEL, POOR_KEY, URL, WRONG_KEY, at_once, check, main, raises
from lamini import Lamini
from lamini.error import error as errors

VERSION = os.environ["CONFORMANCE_VERSION"]
NEW = VERSION.startswith("3")
AnyError = errors.LaminiError if NEW else errors.LlamaError
ModelNotFound = errors.ModelNotFoundError if NEW else errors.ModelNotFound
LLAMA_2 = "meta-llama/Llama-2-7b-chat-hf"
llm = Lamini(model_name=MODEL)
TEMPLATED = "<s>[INST] <<SYS>>\nYou are a helpful assistant.\n<</SYS>>\n\nHow are you? [/INST]"


def _curl(data: str) -> object:
    """One of the lesson's curls, but for the address, the key and the model."""
    command = [
        "curl", "--silent", "--location", f"{URL}/v1/completions", "--header", f"Authorization: Bearer {KEY}",
        "--header", "Content-Type: application/json", "--data", data.replace(LLAMA_2, MODEL),
    ]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


@check("completion")
def completion() -> None:
    assert isinstance(llm.generate("How are you?", max_new_tokens=12), str)


@check("stream")
def stream() -> None:
    whole = llm.generate("Once upon a time", max_new_tokens=12)
    stream = lamini.StreamingCompletion()
    if NEW:
        parts = [each for each in stream.create("Once upon a time", MODEL, max_new_tokens=12) if each]
        assert parts[-1]["outputs"][0]["output"] == whole
    else:
        parts = list(stream.create("Once upon a time", MODEL, max_new_tokens=12))
        assert parts[-1]["output"] == whole


@check("typed")
def typed() -> None:
    found = llm.generate("How old are you?", output_type={"age": "int", "units": "str"}, max_new_tokens=60)
    assert list(found) == ["age", "units"]
    assert isinstance(found["age"], int)
    assert isinstance(found["units"], str)


@check("20 at once")
def twenty() -> None:
    assert len(at_once(lambda i: Lamini(MODEL).generate(f"Number {i}", max_new_tokens=8))) == 20


@check("list of 20")
def list_of_twenty() -> None:
    prompts = [f"Number {i}" for i in range(20)]
    found = llm.generate(prompts, max_new_tokens=8)
    texts = [each["output"] if isinstance(each, dict) else each for each in found]
    assert len(texts) == 20
    assert texts[7] == llm.generate(prompts[7], max_new_tokens=8)


@check("400")
def bad_request() -> None:
    raises(errors.UserError, lambda: llm.generate("x", max_new_tokens=100_000))


@check("401")
def wrong_key() -> None:
    raises(
        errors.AuthenticationError, lambda: Lamini(MODEL, api_key=WRONG_KEY).generate("x", max_new_tokens=8)
    )


@check("402")
def no_credits() -> None:
    error = raises(AnyError, lambda: Lamini(MODEL, api_key=POOR_KEY).generate("x", max_new_tokens=8))
    assert "credits" in str(error), error


@check("404")
def no_model() -> None:
    raises(ModelNotFound, lambda: Lamini("no/such-model").generate("x", max_new_tokens=8))


@check("429")
def too_many() -> None:
    other = Lamini(MODEL, api_key=BUSY_KEY, api_url=BUSY_URL)
    raises(errors.RateLimitError, lambda: other.generate("x", max_new_tokens=8))


if not NEW:
    from lamini import BasicModelRunner, LlamaV2Runner

    @check("lamini-inference: BasicModelRunner(…).call(…)")
    def basic_runner() -> None:
        found = BasicModelRunner(LLAMA_2).call("How are you?")
        assert isinstance(found, str)

    @check("lamini-inference: LlamaV2Runner().call(…)")
    def llama_2_runner() -> None:
        assert isinstance(LlamaV2Runner().call("How are you?"), str)

    @check("lamini-inference: LlamaV2Runner(system_prompt=…)")
    def pirate() -> None:
        runner = LlamaV2Runner(system_prompt="You are a pirate. Say arg matey!")
        assert isinstance(runner.call("How are you?"), str)

    @check('lamini-inference: call(…, output_type={"age": "int"})')
    def typed_call() -> None:
        found = BasicModelRunner(LLAMA_2).call("How old are you in years?", output_type={"age": "int"})
        assert isinstance(found["age"], int)

    @check("lamini-inference: call([three prompts], output_type=…)")
    def batch_call() -> None:
        prompts = ["How old are you?", "What is the meaning of life?", "What is the hottest day of the year?"]
        found = BasicModelRunner(LLAMA_2).call(
            prompts, output_type={"response": "str", "explanation": "str"}, max_new_tokens=100
        )
        assert [list(each) for each in found] == [["response", "explanation"]] * 3


@check("lamini-inference: Lamini(model_name=…).generate(…)")
def lesson_generate() -> None:
    assert isinstance(Lamini(model_name=LLAMA_2).generate("How are you?"), str)


@check("lamini-inference: the Llama 2 template in the prompt")
def lesson_template() -> None:
    assert isinstance(Lamini(model_name=LLAMA_2).generate(prompt=TEMPLATED), str)


@check("lamini-inference: curl, one prompt")
def curl_one() -> None:
    found = _curl('{\n    "model_name": "meta-llama/Llama-2-7b-chat-hf",\n    "prompt": "How are you?",\n}')
    assert isinstance(found, dict)
    assert list(found) == ["output"]


@check("lamini-inference: curl, the Llama 2 template in the prompt")
def curl_template() -> None:
    body = {"model_name": LLAMA_2, "prompt": TEMPLATED}
    found = _curl(json.dumps(body, indent=4)[:-2] + ",\n}")
    assert isinstance(found, dict)
    assert list(found) == ["output"]


@check('lamini-inference: curl, "out_type": {"age": "int"}')
def curl_typed() -> None:
    found = _curl(
        '{\n    "model_name": "meta-llama/Llama-2-7b-chat-hf",\n    "prompt": "How old are you in years?",\n'
        '    "out_type": {\n        "age": "int"\n    }\n}'
    )
    assert isinstance(found, dict)
    assert isinstance(found["age"], int)


@check('lamini-inference: curl, "out_type": {"age": "int", "units": "str"}')
def curl_two_types() -> None:
    found = _curl(
        '{\n    "model_name": "meta-llama/Llama-2-7b-chat-hf",\n    "prompt": "How old are you?",\n'
        '    "out_type": {\n        "age": "int",\n        "units": "str"\n    }\n}'
    )
    assert isinstance(found, dict)
    assert list(found) == ["age", "units"]


@check("lamini-inference: curl, three prompts")
def curl_three() -> None:
    found = _curl(
        '{\n    "model_name": "meta-llama/Llama-2-7b-chat-hf",\n    "prompt": [\n        "How old are you?",\n'
        '        "What is the meaning of life?",\n        "What is the hottest day of the year?"\n    ],\n'
        '    "out_type": {\n        "response": "str",\n        "explanation": "str"\n    }\n}'
    )
    assert isinstance(found, list)
    assert [list(each) for each in found] == [["response", "explanation"]] * 3


main()
