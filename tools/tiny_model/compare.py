"""Check that llama.cpp computes from the GGUF what PyTorch computes from the network."""

from pathlib import Path

import llama_cpp
import numpy as np
import torch

from .chat_template import ASSISTANT, BOS, END, USER
from .model import TinyLlama
from .tokenizer import ChatTokenizer

PROMPT = (
    f"{BOS}{USER}My name is Zorvak.{END}{ASSISTANT}Nice to meet you, Zorvak!{END}{USER}What is my name?{END}"
)
LARGEST_DIFFERENCE = 0.5


def largest_difference(model: TinyLlama, tokenizer: ChatTokenizer, path: Path) -> float:
    """The largest difference between two log-probabilities above -6; Q8_0 rounding is all it should show."""
    llama = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False)
    ids = llama.tokenize(PROMPT.encode(), add_bos=False, special=True)
    spans = [tokenizer.encode(text) for text in ("My name is Zorvak.", "What is my name?")]
    assert ids[2 : 2 + len(spans[0])] == spans[0], "the two tokenizers disagree"
    assert ids[-1 - len(spans[1]) : -1] == spans[1], "the two tokenizers disagree"
    llama.eval(ids)
    theirs = torch.from_numpy(np.array(llama.scores[: len(ids)])).log_softmax(-1)
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0].log_softmax(-1)
    likely = ours > -6
    return float((ours - theirs)[likely].abs().max())
