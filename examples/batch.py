"""Asks many prompts in one batch, one charge, and prints each answer as soon as it is there.

    python examples/batch.py "What is a chatbot?" "What is a llama?"

Needs `pip install .` in a clone, and HERDER_URL and HERDER_API_KEY in the environment.
"""

from __future__ import annotations

import sys

from llama_herder import Herder, HerderError

PROMPTS = ["What is a chatbot?", "What is a llama?", "Name three colours."]


def main() -> None:
    """Submit, print in the order of completion, add up."""
    prompts = sys.argv[1:] or PROMPTS
    captured = 0
    # Left early (Ctrl-C), the rest is cancelled and refunded; without cancel_on_exit the batch would go on.
    with (
        Herder() as herder,
        herder.map(prompts, tokens=60, ordered=False, max_fee=1_000, cancel_on_exit=True) as results,
    ):
        for result in results:
            captured += result.captured
            answer = result.text if result.error is None else f"[{result.status}: {result.error.message}]"
            print(f"{prompts[result.index]}\n  {answer.strip()}\n", flush=True)
        if results.batch is not None:
            print(f"[{results.batch.id}: {captured} of {results.batch.fee} credits]", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the rest was cancelled")
    except HerderError as error:
        sys.exit(f"error: {error}")
