"""A chat in the browser: history, a system message, the temperature, and answers that appear as they are made.

    python examples/gradio_chat.py --port 7860

Needs `pip install '.[ui]'` (gradio, some 50 packages), and HERDER_URL and HERDER_API_KEY in the
environment. Whoever reaches the port talks on the key's account, so it is this machine's alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from llama_herder import Chat, Herder, HerderError, Message, Restarted, Tokens

TOKENS = 256
MAX_FEE = 1_000
INSTRUCTION = "You are a helpful assistant. Answer briefly."

History = list[dict[str, Any]]


def turns(history: History) -> list[Message]:
    """What the page shows as what a model reads: the text of each message, but for what had no answer."""
    found: list[Message] = []
    for turn in history:
        content = turn["content"]
        if isinstance(content, list):  # gradio's own parts
            content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
        if (turn.get("metadata") or {}).get("title"):  # an apology, for the message before it
            found.pop()
        else:
            found.append({"role": turn["role"], "content": content})
    return found


def respond(
    herder: Herder, message: str, history: History, instruction: str = INSTRUCTION, temperature: float = 0.7
) -> Iterator[tuple[str, History]]:
    """The box, emptied, and the history with the answer so far; again with every piece of it.

    A chat template keeps the speakers apart, so the model does not go on as the user: no stop sequences are needed.
    """
    if not message.strip():
        yield "", history
        return
    chat = Chat(herder, messages=turns(history), tokens=TOKENS, max_fee=MAX_FEE, temperature=temperature)
    chat.system = instruction.strip() or None
    so_far, text = [*history, {"role": "user", "content": message}], ""
    yield "", [*so_far, {"role": "assistant", "content": ""}]
    try:
        # Left by closing the page or pressing stop, nothing more is paid for.
        with chat.stream(message, cancel_on_disconnect=True) as events:
            for event in events:
                if isinstance(event, Restarted):
                    text = ""
                elif isinstance(event, Tokens):
                    text += event.text
                    yield "", [*so_far, {"role": "assistant", "content": text}]
    except HerderError as error:
        apology = {"role": "assistant", "content": str(error), "metadata": {"title": "No answer"}}
        yield "", [*so_far, apology]


def page(herder: Herder) -> Any:
    """The page."""
    import gradio as gr

    def answer(message: str, history: History, instruction: str, temperature: float) -> Any:
        yield from respond(herder, message, history, instruction, temperature)

    with gr.Blocks(title="Chat with a herd", analytics_enabled=False) as demo:
        chatbot = gr.Chatbot(height=420, label="Chat")
        msg = gr.Textbox(label="Prompt", placeholder="What is a chatbot?")
        with gr.Accordion(label="Advanced options", open=False):
            system = gr.Textbox(label="System message", lines=2, value=INSTRUCTION)
            temperature = gr.Slider(label="Temperature", minimum=0.0, maximum=2.0, value=0.7, step=0.1)
        with gr.Row():
            submit = gr.Button("Submit", variant="primary")
            stop = gr.Button("Stop")
            gr.ClearButton(components=[msg, chatbot], value="Clear")
        asked = [msg, chatbot, system, temperature]
        running = [
            submit.click(answer, inputs=asked, outputs=[msg, chatbot]),
            msg.submit(answer, inputs=asked, outputs=[msg, chatbot]),
        ]
        stop.click(None, cancels=running)
    return demo


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A chat in the browser.")
    parser.add_argument("--port", type=int, default=7860)
    asked = parser.parse_args()
    with Herder() as herder:
        herder.account()  # says now what would be wrong with the first answer
        page(herder).queue().launch(server_name="127.0.0.1", server_port=asked.port)


if __name__ == "__main__":
    try:
        main()
    except HerderError as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is missing: pip install '.[ui]'")
