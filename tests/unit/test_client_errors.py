"""The client's exceptions are the server's: the same names, codes, statuses and branches."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import herder.errors
import llama_herder
import llama_herder.errors
import llama_herder.problems


def leaves(kind: type[herder.errors.HerderError]) -> Iterator[type[herder.errors.HerderError]]:
    """What a dialect makes of an error is no other kind of it."""
    below = [sub for sub in kind.__subclasses__() if sub.__module__ == "herder.errors"]
    if not below:
        yield kind
    for sub in below:
        yield from leaves(sub)


SERVER = list(leaves(herder.errors.HerderError))


def test_every_problem_code_has_its_exception() -> None:
    assert len(SERVER) >= 20
    for theirs in SERVER:
        ours = llama_herder.problems.error_class(theirs.code, theirs.status)
        assert (ours.__name__, ours.code, ours.status) == (theirs.__name__, theirs.code, theirs.status)
        assert getattr(llama_herder, theirs.__name__) is ours


def test_the_branches_are_the_same() -> None:
    for theirs in SERVER:
        ours = llama_herder.problems.error_class(theirs.code, theirs.status)
        branches = {"Refusal", "Unavailable"}
        names = {kind.__name__ for kind in theirs.__mro__} & branches
        assert names == {kind.__name__ for kind in ours.__mro__} & branches
        assert issubclass(ours, llama_herder.HerderError)


def test_no_exception_stands_for_a_code_that_the_server_does_not_have() -> None:
    assert set(llama_herder.problems._BY_CODE) == {kind.code for kind in SERVER}


def test_everything_public_is_exported() -> None:
    public = {
        name
        for name, value in (vars(llama_herder.errors) | vars(llama_herder.problems)).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert public <= set(llama_herder.__all__)


JOB = llama_herder.Job.from_json({"id": "job_1", "status": "failed"})


@pytest.mark.parametrize(
    "error",
    [
        llama_herder.JobFailed("it broke", JOB),
        llama_herder.WaitTimeout("too late", "job_1", JOB),
        llama_herder.OutputInvalid("no Person", JOB),
        llama_herder.InsufficientFunds("too few", request_id="req_1", extra={"needed": 5}),
    ],
)
def test_an_error_comes_out_of_another_process_as_it_was(error: llama_herder.HerderError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
