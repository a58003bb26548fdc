"""Serves the model: POST /generate, GET /ready."""

import os
import time

import torch
from fastapi import FastAPI
from pydantic import BaseModel, Field

import model

VERSION = "1"

started = time.monotonic()
loaded = model.load(os.environ.get("MODEL_PATH", "/models/model.safetensors"))
loaded.generate("warm", 2, 0, 0)  # the first pass is slower than the others
ready_after = time.monotonic() - started
app = FastAPI(title="A small transformer")


class Ask(BaseModel):
    prompt: str = Field(max_length=1000)
    max_tokens: int = Field(32, ge=1, le=256)
    temperature: float = Field(0, ge=0, le=2)
    seed: int = Field(0, ge=0, le=2**31)


@app.get("/ready")
def ready():
    return {"version": VERSION, "parameters": sum(p.numel() for p in loaded.parameters()), "threads": torch.get_num_threads(), "loadSeconds": round(ready_after, 3)}


@app.post("/generate")
def generate(ask: Ask):
    begin = time.perf_counter()
    text = loaded.generate(ask.prompt, ask.max_tokens, ask.temperature, ask.seed)
    return {"text": text, "tokens": ask.max_tokens, "millis": round((time.perf_counter() - begin) * 1000, 2)}
