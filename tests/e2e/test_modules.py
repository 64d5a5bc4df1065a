"""A module on a real herd with the tiny model: run by JSON, by a file and by a CID, its result read back by its CID."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from herder.audit import audit
from tests.e2e.herd import herd, run_command
from tests.unit.test_cids import QUESTION

CID = "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt"


def test_a_module_is_run_and_its_result_is_read_by_its_cid() -> None:
    with herd() as up:
        environment = {"HERDER_URL": up.url, "HERDER_API_KEY": up.keys["demo"], "HERDER_DATA_DIR": "d"}
        (up.folder / "question.json").write_text(QUESTION, "utf-8")

        def herder(*words: str) -> str:
            done = run_command(*words, folder=up.folder, environment=environment)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert herder("store", "add", "question.json") == f"{CID}\n"
        inline = json.dumps(json.loads(QUESTION))
        cids = {
            herder("module", "run", "fastchat:v0.0.1", given) for given in (inline, "@question.json", CID)
        }
        # Greedy, so that the same question has the same answer, and with it the same CID.
        (cid,) = {cid.strip() for cid in cids}
        assert cid.startswith("Qm")
        headers = {"Authorization": f"Bearer {up.keys['demo']}"}
        with httpx.Client(base_url=up.url, headers=headers, trust_env=False) as client:
            reply = client.get(f"/ipfs/{cid}/output/result.json")
            folder = client.get(f"/ipfs/{cid}").json()
            asked = client.get(f"/ipfs/{CID}").text
            jobs = client.get("/v1/jobs").json()["jobs"]
        result = reply.json()
        assert list(result) == ["question", "text"]
        assert result["question"] == "What is a chatbot?"
        assert result["text"].strip()
        assert [entry["name"] for entry in folder["entries"]] == ["output"]
        assert asked == QUESTION
        assert [job["status"] for job in jobs] == ["succeeded"] * 3
        assert all(job["result"]["text"] == result["text"] for job in jobs)
        assert herder("module", "result", cid) == reply.text + "\n"
        assert herder("store", "get", f"{cid}/output/result.json") == reply.text
        assert (up.folder / Path("d") / "store").is_dir()
        assert up.ask(audit).clean
        up.stop()
        # The store is a folder: it is read without a herd too.
        assert herder("store", "get", CID) == QUESTION
