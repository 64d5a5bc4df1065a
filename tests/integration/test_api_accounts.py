"""Accounts, keys, the ledger and the audit over HTTP; and what an ordinary key may not do."""

from __future__ import annotations

from herder.apikeys import well_formed
from tests.integration.api import Front, problem

ADMIN = "/v1/admin/accounts"


async def test_an_account_its_key_and_its_first_prompt(front: Front) -> None:
    made = await front.admin.post(ADMIN, json={"id": "bob", "credits": 100})
    assert (made.status_code, made.json()["available"], made.json()["held"]) == (201, 100, 0)
    problem(await front.admin.post(ADMIN, json={"id": "bob"}), 409, "conflict")
    key = (await front.admin.post(f"{ADMIN}/bob/keys", json={"label": "laptop"})).json()
    assert (well_formed(key["key"]), key["role"], key["account"], key["label"]) == (
        True,
        "client",
        "bob",
        "laptop",
    )
    bob = front.with_key(key["key"])
    assert (await bob.post("/v1/jobs", json={"prompt": "hi", "tokens": 5})).status_code == 202
    assert (await bob.get("/v1/account")).json()["held"] == 15
    assert (await front.admin.get(f"{ADMIN}/bob")).json()["held"] == 15
    listed = (await front.admin.get(ADMIN)).json()["accounts"]
    assert [account["id"] for account in listed] == ["alice", "root", "bob"]


async def test_an_account_that_is_refused_is_not_there_and_can_be_made_with_less(front: Front) -> None:
    refused = await front.admin.post(ADMIN, json={"id": "rich", "credits": 9_007_199_254_740_991})
    assert "must stay below" in problem(refused, 422, "invalid_request")["detail"]
    problem(await front.admin.get(f"{ADMIN}/rich"), 404, "not_found")
    assert "rich" not in [row["id"] for row in (await front.admin.get(ADMIN)).json()["accounts"]]
    made = await front.admin.post(ADMIN, json={"id": "rich", "credits": 5})
    assert (made.status_code, made.json()["available"]) == (201, 5)
    (entry,) = (await front.admin.get(f"{ADMIN}/rich/ledger")).json()["entries"]
    told = [entry[name] for name in ("kind", "source", "target", "amount", "memo")]
    assert told == ["deposit", "mint", "available", 5, "opening credits"]
    assert (await front.admin.get("/v1/admin/audit")).json()["clean"]


async def test_accounts_are_listed_all_at_once_or_by_pages(front: Front) -> None:
    for name in ("bob", "carl"):
        await front.admin.post(ADMIN, json={"id": name})
    everybody = (await front.admin.get(ADMIN)).json()
    assert everybody["next"] is None
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await front.admin.get(ADMIN, params=query)).json()
        assert len(page["accounts"]) <= 2
        found += [account["id"] for account in page["accounts"]]
        cursor = page["next"]
    assert found == [account["id"] for account in everybody["accounts"]]
    assert {"alice", "bob", "carl"} <= set(found)
    problem(await front.admin.get(ADMIN, params={"limit": "1001"}), 422, "invalid_request")


async def test_a_key_is_shown_once_and_a_revoked_one_is_refused(front: Front) -> None:
    key = (await front.admin.post(f"{ADMIN}/alice/keys", json={})).json()
    listed = (await front.admin.get(f"{ADMIN}/alice/keys")).json()["keys"]
    assert len(listed) == 2
    assert all("key" not in row for row in listed)
    assert key["key"] not in (await front.admin.get(f"{ADMIN}/alice/keys")).text
    client = front.with_key(key["key"])
    assert (await client.get("/v1/account")).status_code == 200
    revoked = (await front.admin.delete(f"{ADMIN}/alice/keys/{key['id']}")).json()
    assert revoked["revoked"] is True
    problem(await client.get("/v1/account"), 401, "invalid_key")
    assert (await front.client.get("/v1/account")).status_code == 200, "her other key is still good"
    problem(await front.admin.delete(f"{ADMIN}/alice/keys/key_none"), 404, "not_found")


async def test_deposits_count_once_and_adjustments_stop_at_what_is_available(front: Front) -> None:
    deposit = {"amount": 500, "deposit_id": "invoice-17", "memo": "invoice 17"}
    for _ in range(2):
        assert (await front.admin.post(f"{ADMIN}/alice/deposit", json=deposit)).json()["available"] == 1_500
    problem(
        await front.admin.post(f"{ADMIN}/alice/deposit", json={**deposit, "amount": 501}), 409, "conflict"
    )
    await front.submit(fee=1_500)
    short = problem(
        await front.admin.post(f"{ADMIN}/alice/adjust", json={"amount": -1, "memo": "x"}),
        402,
        "insufficient_funds",
    )
    assert (short["needed"], short["balance"]) == (1, 0)
    done = await front.admin.post(f"{ADMIN}/alice/adjust", json={"amount": 7, "memo": "sorry"})
    assert done.json()["available"] == 7
    for body in ({"amount": 0}, {"amount": 2**53}, {"amount": 1.0}, {"amount": 5, "momo": ""}):
        problem(await front.admin.post(f"{ADMIN}/alice/deposit", json=body), 422, "invalid_request")
    problem(
        await front.admin.post(f"{ADMIN}/alice/adjust", json={"amount": 0, "memo": "x"}),
        422,
        "invalid_request",
    )


async def test_the_ledger_tells_every_movement_and_the_audit_agrees(front: Front) -> None:
    job = await front.submit()
    await front.answer(tokens=5)
    entries = (await front.client.get("/v1/account/ledger")).json()["entries"]
    assert [(e["kind"], e["amount"]) for e in entries[::-1]][:2] == [("deposit", 1_000), ("hold", 30)]
    assert {(e["kind"], e["amount"], e["job_id"]) for e in entries[:2]} == {
        ("capture", 15, job["id"]), ("void", 15, job["id"]),
    }  # fmt: skip
    same = (await front.admin.get(f"{ADMIN}/alice/ledger")).json()["entries"]
    assert same == entries
    pages, cursor = [], ""
    for _ in range(4):
        page = (await front.client.get(f"/v1/account/ledger?limit=1{cursor}")).json()
        pages += page["entries"]
        cursor = f"&cursor={page['next']}"
    assert pages == entries
    audit = (await front.admin.get("/v1/admin/audit")).json()
    assert (audit["clean"], audit["problems"], audit["revenue"]) == (True, [], 15)


async def test_suspending_and_resuming(front: Front) -> None:
    assert (await front.admin.post(f"{ADMIN}/alice/suspend")).json()["suspended"] is True
    problem(await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5}), 403, "account_suspended")
    quote = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 5})).json()
    assert (quote["feasible"], quote["reason"]["code"]) == (False, "account_suspended")
    assert (await front.admin.post(f"{ADMIN}/alice/resume")).json()["suspended"] is False
    await front.submit()


async def test_an_ordinary_key_administers_nothing(front: Front) -> None:
    calls = [
        ("GET", ADMIN, None), ("POST", ADMIN, {"id": "mallory"}), ("GET", f"{ADMIN}/alice", None),
        ("POST", f"{ADMIN}/alice/deposit", {"amount": 5}),
        ("POST", f"{ADMIN}/alice/adjust", {"amount": 5, "memo": "x"}),
        ("POST", f"{ADMIN}/root/suspend", None), ("POST", f"{ADMIN}/alice/resume", None),
        ("GET", f"{ADMIN}/alice/keys", None), ("POST", f"{ADMIN}/alice/keys", {"role": "admin"}),
        ("DELETE", f"{ADMIN}/root/keys/x", None), ("GET", f"{ADMIN}/root/ledger", None),
        ("GET", "/v1/admin/audit", None),
    ]  # fmt: skip
    listed = {path for path in front.app.openapi()["paths"] if path.startswith("/v1/admin")}
    assert len(listed) == 10, "a new address needs a line above"
    for method, path, body in calls:
        problem(await front.client.request(method, path, json=body), 403, "forbidden")
        problem(await front.anonymous.request(method, path, json=body), 401, "missing_key")
    problem(await front.client.post(ADMIN, content=b"not json"), 403, "forbidden")
    assert await front.balances() == (1_000, 0)


async def test_unknown_and_impossible_accounts(front: Front) -> None:
    for name in ("nobody", "No", "a:b", "%00", "x" * 64):
        for method, path, body in (
            ("GET", "", None), ("POST", "/deposit", {"amount": 5}), ("POST", "/adjust", {"amount": 5, "memo": "x"}),
            ("POST", "/suspend", None), ("GET", "/keys", None), ("POST", "/keys", {}), ("GET", "/ledger", None),
            ("DELETE", "/keys/x", None),
        ):  # fmt: skip
            problem(await front.admin.request(method, f"{ADMIN}/{name}{path}", json=body), 404, "not_found")
    for name in ("", "Alice", "-a", "a:b", "a\n", "é", "x" * 64):
        problem(await front.admin.post(ADMIN, json={"id": name}), 422, "invalid_request")


async def test_no_account_is_called_like_a_balance_of_the_books(front: Front) -> None:
    for name in ("revenue", "mint", "available", "held"):
        document = problem(
            await front.admin.post(ADMIN, json={"id": name, "credits": 5}), 422, "invalid_request"
        )
        (fault,) = document["errors"]
        assert (fault["field"], name in fault["message"], "take another" in fault["message"]) == (
            "id",
            True,
            True,
        )
        problem(await front.admin.get(f"{ADMIN}/{name}"), 404, "not_found")
    assert (await front.admin.post(ADMIN, json={"id": "minted"})).status_code == 201
