"""A bare FastAPI app that answers with what it was sent, under the very uvicorn settings of `herder serve`."""

from __future__ import annotations

import sys

from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from herder.serve import server
from herder.settings import Settings


class Body(BaseModel):
    """The same fields as a job's."""

    prompt: str
    tokens: int
    raw: bool


app = FastAPI()


@app.post("/")
async def echo(body: Body) -> Body:
    """The body."""
    return body


if __name__ == "__main__":
    server(
        Settings(port=int(sys.argv[1]), redis_url="unix:///nowhere", key_secret=SecretStr("x" * 32)), app
    ).run()
