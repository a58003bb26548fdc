"""Serves the model: POST /generate, GET /ready."""

import json
import os
import time

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import model

VERSION = "1"

started = time.monotonic()
loaded = model.load(os.environ.get("MODEL_PATH", "/models/model.safetensors"))
list(loaded.stream("warm", 2, 0, 0))  # the first pass is slower than the others
ready_after = time.monotonic() - started
app = FastAPI(title="A small transformer")


class Ask(BaseModel):
    prompt: str = Field(max_length=1000)
    max_tokens: int = Field(32, ge=1, le=256)
    temperature: float = Field(0, ge=0, le=2)
    seed: int = Field(0, ge=0, le=2**31)
    stream: bool = False


def events(ask: Ask):
    """Yields server-sent events, one for each token, as OpenAI's API does."""
    for text in loaded.stream(ask.prompt, ask.max_tokens, ask.temperature, ask.seed):
        yield f"data: {json.dumps({'text': text})}\n\n"
    yield "data: [DONE]\n\n"


@app.get("/ready")
def ready():
    return {"version": VERSION, "parameters": sum(p.numel() for p in loaded.parameters()), "threads": torch.get_num_threads(), "loadSeconds": round(ready_after, 3)}


@app.post("/generate")
def generate(ask: Ask):
    if ask.stream:
        return StreamingResponse(events(ask), media_type="text/event-stream")
    begin = time.perf_counter()
    text = "".join(loaded.stream(ask.prompt, ask.max_tokens, ask.temperature, ask.seed))
    return {"text": text, "tokens": ask.max_tokens, "millis": round((time.perf_counter() - begin) * 1000, 2)}
