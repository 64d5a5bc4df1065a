"""Prints an answer while it is made.

    python examples/stream.py "What is a chatbot?"

Needs `pip install .` in a clone, and HERDER_URL and HERDER_API_KEY in the environment.
"""

from __future__ import annotations

import sys

from llama_herder import Done, Herder, HerderError, Queued, Restarted, Tokens


def main() -> None:
    """Submit, follow, print."""
    prompt = " ".join(sys.argv[1:]) or "What is a chatbot?"
    with Herder() as herder, herder.stream(prompt, tokens=60) as events:
        for event in events:
            if isinstance(event, Queued):
                print(f"[{event.job_id}: {event.position} ahead]", file=sys.stderr)
            elif isinstance(event, Tokens):
                print(event.text, end="", flush=True)
            elif isinstance(event, Restarted):
                print("\n[a worker died: once more from the start]", file=sys.stderr)
            elif isinstance(event, Done):
                print(f"\n[{event.job.status}, {event.job.captured} credits]", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: a job that was accepted goes on")
    except HerderError as error:
        sys.exit(f"error: {error}")
