"""The examples, run as they stand: a receiver of webhooks on loopback, and a stream from a herder that is not there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from herder.signatures import new_secret, signed_headers

EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET, OLD = new_secret(), new_secret()
BODY = json.dumps({"type": "job.succeeded", "data": {"id": "job_1", "result": {"text": "hällo\n"}}}).encode()


@pytest.fixture
def receiver() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(EXAMPLES / "receive_webhooks.py"), "--port", "0"]
    child = subprocess.Popen(
        [*command, "--secret", OLD, "--secret", SECRET], stdout=subprocess.PIPE, encoding="utf-8"
    )
    with child:
        yield child
        child.kill()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def test_a_receiver_verifies_and_works_once(receiver: subprocess.Popen[str]) -> None:
    url = line(receiver).removeprefix("listening on ")
    headers = signed_headers("msg_1", int(time.time()), BODY, [SECRET])
    with httpx.Client(base_url=url, trust_env=False) as herd:
        assert herd.post("/", content=BODY, headers=headers).status_code == 204
        assert line(receiver) == "job.succeeded job_1 'hällo\\n'"
        assert herd.post("/", content=BODY, headers=headers).status_code == 204
        assert herd.post("/", content=BODY + b" ", headers=headers).status_code == 400
        assert line(receiver).startswith(
            "refused: the webhook's signature is wrong"
        )  # the second was not worked on
        old = signed_headers("msg_1", int(time.time()) - 400, BODY, [SECRET])
        assert herd.post("/", content=BODY, headers=old).status_code == 400
        assert "too old" in line(receiver)
        assert herd.post("/", content=b"x" * 100_001, headers=headers).status_code == 413
        again = signed_headers("msg_2", int(time.time()), BODY, [OLD])
        assert herd.post("/", content=BODY, headers=again).status_code == 204
        assert line(receiver).startswith("job.succeeded job_1")
    receiver.send_signal(signal.SIGINT)
    assert line(receiver) == "stopped"
    assert receiver.wait(30) == 0


def test_work_that_failed_is_sent_again(receiver: subprocess.Popen[str]) -> None:
    url = line(receiver).removeprefix("listening on ")
    strange = json.dumps({"type": "job.succeeded", "data": {}}).encode()
    headers = signed_headers("msg_1", int(time.time()), strange, [SECRET])
    with httpx.Client(base_url=url, trust_env=False) as herd:
        for _ in range(2):
            assert herd.post("/", content=strange, headers=headers).status_code == 500
            assert line(receiver) == "failed: msg_1: KeyError('id')"


def test_a_receiver_without_a_secret_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HERDER_WEBHOOK_SECRET"}
    command = [sys.executable, str(EXAMPLES / "receive_webhooks.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "no secret: give the one that the herd showed" in done.stderr


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(EXAMPLES / "receive_webhooks.py"), "--port", port, "--secret", SECRET]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_stream_without_a_herd_is_one_line() -> None:
    environment = {**os.environ, "HERDER_URL": "http://127.0.0.1:9", "HERDER_API_KEY": "hk_x"}
    command = [sys.executable, str(EXAMPLES / "stream.py"), "hi"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot connect to http://127.0.0.1:9")
    assert done.stderr.count("\n") == 1
