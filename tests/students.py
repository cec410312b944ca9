"""Tiny students as training exports them, for tests of serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CHOICES = ["business", "health", "politics", "sports", "technology"]


def make_classifier(
    encoder: Path, folder: Path, choices: Sequence[str] = CHOICES, seed: int = 1
) -> Path:
    """A student with a head for classes.

    Its weights are blown up, so that texts differ in their answers and a wrong order shows.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)  # of the head
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder,
        id2label=dict(enumerate(choices)),
        label2id={choice: number for number, choice in enumerate(choices)},
    )
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(15 if weights.dim() == 2 else 1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    (folder / "README.md").write_text("# A tiny one\n")
    return folder
