"""A student behind plain FastAPI and a transformers pipeline, as one writes it in five minutes."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

torch.set_num_threads(1)
app = FastAPI()
classify_texts = pipeline("text-classification", model=sys.argv[1], top_k=None, device=-1)


class Body(BaseModel):
    """What is asked."""

    input: str | list[str]


@app.get("/pid")
def pid() -> int:
    """The process that answers."""
    return os.getpid()


@app.post("/v1/classify")
def classify(body: Body) -> Any:
    """The pipeline's own answer, with its default batches."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    return {"results": classify_texts(texts, batch_size=len(texts), truncation=True)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
