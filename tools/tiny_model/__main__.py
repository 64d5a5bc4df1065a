"""Train, export and evaluate herd-tiny: `python -m tools.tiny_model`."""

import argparse
import sys
from pathlib import Path

import torch

from . import compare, evaluate
from .export import export
from .tokenizer import train_tokenizer
from .train import train


def main() -> int:
    """The whole way from the seed to the measured file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=evaluate.MODEL_PATH)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = train_tokenizer()
    model = train(tokenizer)
    export(model, tokenizer, options.out)
    difference = compare.largest_difference(model, tokenizer, options.out)
    print(f"largest difference between llama.cpp and PyTorch: {difference:.3f} (log-probability)")
    assert difference < compare.LARGEST_DIFFERENCE, "llama.cpp computes something else"
    checks = evaluate.evaluate(options.out)
    evaluate.record(options.out, checks)
    return 0 if evaluate.passed(options.out, checks) else 1


if __name__ == "__main__":
    sys.exit(main())
