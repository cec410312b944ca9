r"""Writes a small T5 that has learnt nothing, to show students of its family without its weights.

    python recipes/zero_shot/make_t5.py FOLDER
    stillhouse run recipes/zero_shot.yaml --profile local \
        --set students.student.family=seq2seq --set students.student.model=FOLDER

No weights of T5 come as a package. This one is T5's architecture as it is drawn, with a tokenizer
made of the recipe's headlines. What it learns it learns from the recipe's rows alone: that is
little.
With a network, name google/t5-v1_1-small in the place of FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[1]


def make(folder: Path) -> None:
    """Write model and tokenizer as a Hugging Face folder."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    rows = (RECIPES / "demo" / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    examples = (RECIPES / "zero_shot" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [text for line in (*rows, *examples) for text in json.loads(line).values()]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=4096, special_tokens=["<pad>", "</s>"])
    bpe._tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", bpe.token_to_id("</s>"))]
    )
    special = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **special)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=256,
        d_kv=32,
        d_ff=512,
        num_layers=4,
        num_heads=8,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
