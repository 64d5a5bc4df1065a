"""What every engine and model must keep: an answer does not depend on its company, its history or its slot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from herder.brief import Sampling
from herder.protocol import FinishReason
from tests.engines.bench import Answer, Driver, MeasuredEngine, a_lease, same
from worker.engine import Opening, Row, Step
from worker.gguf import read_header, without_tensors
from worker.llama import LlamaEngine
from worker.sequence import settlement_of
from worker.text import TextStream

PROMPTS = (
    "What is the capital of France?",
    "Hello 😀 wörld, 你好",
    "Once upon a time there was a shepherd who had many llamas, and each llama " * 2,
    "x",
    "def main():\n    return 42\n",
    "The quick brown fox jumps over the lazy dog.",
)


def alone(engine: MeasuredEngine, prompt: str, **more: object) -> Answer:
    """The answer in a scheduler of its own."""
    (answer,) = Driver(engine).run(a_lease(prompt, **more))  # type: ignore[arg-type]
    return answer


def test_greedy_text_is_the_same_again_and_in_company(engine: MeasuredEngine) -> None:
    # A requeued job is a fresh run of the same prompt.
    first = [alone(engine, prompt) for prompt in PROMPTS]
    again = [alone(engine, prompt) for prompt in PROMPTS]
    assert all(same(a, b) for a, b in zip(first, again, strict=True)), "the same batches gave other tokens"
    driver = Driver(engine)
    company = driver.run(*(a_lease(prompt) for prompt in PROMPTS[:4]))
    company += driver.run(*(a_lease(prompt) for prompt in PROMPTS[4:]))
    agreed = [same(a, b) for a, b in zip(first, company, strict=True)]
    assert sum(agreed) >= len(agreed) / 2
    # The control: most choices are clear, so that the comparison means something.
    gaps = [gap for answer in first for gap in answer.gaps]
    assert sum(gap >= engine.clear for gap in gaps) > 0.6 * len(gaps)
    assert any(len(step.rows) == 4 for step in engine.steps)


def test_company_in_a_small_batch_moves_no_logit(engine: MeasuredEngine) -> None:
    """One attention kernel serves every batch of fewer than 64 rows: what moved would have leaked from a neighbour.

    On most machines the logits are the same to the bit; rows that are multiplied in other groups may round otherwise.
    """
    rounding = 0.01
    others = [engine.tokenize(prompt)[:8] for prompt in PROMPTS[1:4]]
    for prompt in PROMPTS:
        tokens = engine.tokenize(prompt)[:24]
        moved = np.abs(engine.last_logits(tokens, beside=others) - engine.last_logits(tokens)).max()
        assert moved < rounding, prompt
    # The control: another prompt does move them.
    assert np.abs(engine.last_logits(others[0]) - engine.last_logits(others[1])).max() > 10 * rounding


def test_jobs_that_come_and_go_do_not_disturb_each_other(engine: MeasuredEngine) -> None:
    alone_answers = [alone(engine, prompt) for prompt in PROMPTS]
    driver = Driver(engine)
    leases = [a_lease(prompt, account=f"a{i}") for i, prompt in enumerate(PROMPTS)]
    waiting = list(leases)
    for _ in range(10_000):
        if waiting and driver.scheduler.free_slots:
            driver.admit(waiting.pop(0))
        for _ in range(3):
            driver.step()
        if not waiting and not driver.scheduler.held:
            break
    agreed = [same(a, driver.answers[lease.job_id]) for a, lease in zip(alone_answers, leases, strict=True)]
    assert sum(agreed) >= len(agreed) / 2


def test_a_reused_prefix_changes_nothing(engine: MeasuredEngine) -> None:
    system = "You are a shepherd. You answer in one short sentence. "
    fresh = [alone(engine, system + prompt) for prompt in PROMPTS]
    driver = Driver(engine)
    agreed = []
    for prompt, expected in zip(PROMPTS, fresh, strict=True):
        (answer,) = driver.run(a_lease(system + prompt))
        agreed.append(same(expected, answer))
        shared = len(engine.tokenize(system)) - 2
        assert answer.cached >= shared if prompt != PROMPTS[0] else answer.cached == 0
    assert sum(agreed) >= len(agreed) / 2


def test_the_next_turn_begins_where_the_last_answer_ended(engine: MeasuredEngine) -> None:
    driver = Driver(engine)
    lease = a_lease("Hello there", tokens=8)
    (first,) = driver.run(lease)
    prompt = engine.tokenize("Hello there")
    # The very same prompt again: all but its last token is there.
    (second,) = driver.run(a_lease("Hello there", tokens=8))
    assert second.cached == len(prompt) - 1
    same(first, second)
    # Another account starts from nothing.
    (third,) = driver.run(a_lease("Hello there", tokens=8, account="bob"))
    assert third.cached == 0


def test_the_same_seed_draws_the_same_answer(engine: MeasuredEngine) -> None:
    for seed in (0, 7, 2**32 - 1, 3 << 64):
        warm = Sampling(temperature=0.9, top_p=0.95, seed=seed)
        first, again = (alone(engine, "Tell me", sampling=warm, tokens=8) for _ in range(2))
        assert first.tokens == again.tokens
    # The control: another seed draws another answer.
    answers = {
        tuple(alone(engine, "x", sampling=Sampling(temperature=2.0, seed=seed), tokens=8).tokens)
        for seed in range(6)
    }
    assert len(answers) > 1


def test_text_is_the_pieces_of_the_tokens_and_never_cut(engine: MeasuredEngine) -> None:
    for seed in range(3):
        answer = alone(engine, "😀🇫🇷é你", sampling=Sampling(temperature=1.5, seed=seed), tokens=40)
        tokens = [token for token in answer.tokens if not engine.ends(token)]
        raw = b"".join(engine.piece(token) for token in tokens)
        decoded = raw.decode("utf-8", "replace")
        assert decoded.startswith(answer.text)
        assert len(decoded) - len(answer.text) <= 3


def test_characters_survive_the_vocabulary(engine: MeasuredEngine) -> None:
    text = "naïve 😀 👩‍👩‍👧 你好 \n\t end"
    stream = TextStream()
    pieces = [engine.piece(token) for token in engine.tokenize(text)]
    assert "".join(stream.push(piece) for piece in pieces).strip() == text


def test_a_stop_string_ends_the_answer_before_it(engine: MeasuredEngine) -> None:
    warm = Sampling(temperature=1.0, seed=3)
    whole = next(
        answer
        for prompt in PROMPTS
        if len((answer := alone(engine, prompt, sampling=warm)).text) >= 6 and "\ufffd" not in answer.text
    )
    prompt = next(p for p in PROMPTS if alone(engine, p, sampling=warm).text == whole.text)
    for start in range(1, min(len(whole.text) - 2, 12)):
        stop = whole.text[start : start + 3]
        cut = alone(engine, prompt, sampling=warm, stop=("never \x00 seen", stop))
        assert cut.finish is FinishReason.STOP
        assert cut.text == whole.text[: whole.text.index(stop)]


def test_an_end_token_is_no_part_of_the_answer(engine: MeasuredEngine) -> None:
    ends = [token for token in range(engine.facts.vocab_size) if engine.ends(token)]
    assert ends
    driver = Driver(engine)
    sequence = driver.admit(a_lease("x"))
    driver.step()
    produced = sequence.produced
    sequence.take(ends[0], engine.piece(ends[0]), engine.ends(ends[0]))
    assert sequence.finish is FinishReason.STOP
    assert sequence.produced == produced


def test_cancel_between_steps_frees_the_slot_for_another(engine: MeasuredEngine) -> None:
    expected = alone(engine, PROMPTS[0])
    driver = Driver(engine)
    others = [driver.admit(a_lease("x y z", tokens=100, account=f"a{i}")) for i in range(engine.facts.slots)]
    driver.step()
    driver.step()
    assert driver.scheduler.free_slots == 0
    (gone,) = driver.scheduler.cancel(others[1].lease.job_id)
    assert gone.finish is FinishReason.CANCELLED
    assert settlement_of([gone]).completion_tokens == gone.produced
    assert driver.scheduler.free_slots == 1
    lease = a_lease(PROMPTS[0], account="another")
    driver.run(lease)
    same(expected, driver.answers[lease.job_id])


def test_a_batch_of_nothing_but_prompts_samples_nothing(engine: MeasuredEngine) -> None:
    tokens = tuple(engine.tokenize("one two three"))
    whole = engine.step(
        Step((Row(0, 0, tokens, sample=True),), trims=((0, 0),), opens=(Opening(0, Sampling()),))
    )
    part = engine.step(Step((Row(0, 0, tokens[:-1], sample=False),), trims=((0, 0),)))
    rest = engine.step(Step((Row(0, len(tokens) - 1, tokens[-1:], sample=True),)))
    assert part == {}
    assert engine.gaps[0] < engine.clear or rest == whole


def test_the_published_vocabulary_tokenizes_alike(
    engine: MeasuredEngine, model_file: Path, tmp_path: Path
) -> None:
    import ctypes

    import llama_cpp

    published = tmp_path / "vocabulary.gguf"
    published.write_bytes(without_tensors(read_header(model_file)))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(published).encode(), params)
    assert model
    vocab = llama_cpp.llama_model_get_vocab(model)
    raw = PROMPTS[1].encode()
    tokens = (ctypes.c_int32 * 100)()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, 100, True, True)
    assert list(tokens[:count]) == engine.tokenize(PROMPTS[1])
    llama_cpp.llama_model_free(model)


def test_the_facts_bound_every_prompt(engine: MeasuredEngine) -> None:
    facts = engine.facts
    assert facts.kv_tokens >= 4 * 256
    for prompt in (*PROMPTS, " ", "\n\n\n", "aaaa" * 20):
        size = len(prompt.encode())
        assert size / facts.max_piece_bytes <= len(engine.tokenize(prompt)) <= size + 8


def test_a_prompt_with_its_own_bos_gets_no_second_one(engine: MeasuredEngine) -> None:
    facts = engine.facts
    plain = engine.tokenize("hello")
    written = engine.tokenize(facts.bos_token + "hello")
    bos = written[0]
    assert bos not in written[1:]
    # The control: whether the vocabulary adds one by itself.
    assert (plain[0] == bos) is facts.adds_bos


def test_two_engines_of_one_file_agree(engine: MeasuredEngine, model_file: Path) -> None:
    other = LlamaEngine(model_file, slots=1, context=64)
    try:
        assert other.tokenize(PROMPTS[0]) == engine.tokenize(PROMPTS[0])
        assert other.facts.template == engine.facts.template
    finally:
        other.close()
