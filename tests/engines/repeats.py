"""How many prompts get more than one answer from the same seed: `python -m tests.engines.repeats`.

The built-in model, which is seldom sure of itself; each prompt is asked three times, alone, with others in between.
Prints a line for each way to run the engine. It decides nothing: that a repeatable job repeats is a test's.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

from herder.brief import Sampling
from tests.engines.bench import Driver, MeasuredEngine, a_lease
from tests.engines.test_prefix import HERD_TINY
from tests.engines.test_repeated import CONTEXT, SLOTS, said
from worker.tuning import Tuning

TIMES, TOKENS, OTHERS = 3, 60, 3
WAYS = {
    "as it is": (Tuning(), False),
    "without flash attention": (Tuning(flash_attention="off"), False),
    "the same, a cache for each slot": (Tuning(flash_attention="off", kv_unified="off"), False),
    "values in bf16": (Tuning(kv_type_v="bf16"), False),
    "repeatable": (Tuning(), True),
    "repeatable, a cache for each slot": (Tuning(kv_unified="off"), True),
}


def changed(tuning: Tuning, repeatable: bool, prompts: int, words: int, temperature: float) -> int:
    """Of so many prompts, those with more than one answer."""
    engine = MeasuredEngine(HERD_TINY, slots=SLOTS, context=CONTEXT, threads=2, tuning=tuning)
    driver, found = Driver(engine), 0
    for number in range(prompts):
        texts = set()
        for time in range(TIMES):
            sampling = Sampling(temperature=temperature, seed=7)
            lease = a_lease(said(number, words=words), tokens=TOKENS, sampling=sampling)
            lease = replace(lease, brief=replace(lease.brief, repeatable=repeatable))
            texts.add(driver.run(lease)[0].text)
            length = random.Random(repr((number, time))).randrange(10, 60)
            driver.run(*(a_lease(said(number, time, i, words=length), tokens=10) for i in range(OTHERS)))
        found += len(texts) > 1
    engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=1.3)
    told = parser.parse_args()
    for name, (tuning, repeatable) in WAYS.items():
        found = changed(tuning, repeatable, told.prompts, told.words, told.temperature)
        print(f"{name}: {found} of {told.prompts}")


if __name__ == "__main__":
    main()
