"""Tiny real models with their own tokenizers, made once a session: seconds, and no download."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.student_reading import StudentReading

CORPUS = [
    "Each headline goes to one news desk.",
    "Headline: Central bank holds interest rates as inflation cools\nNews desk: business",
    "Headline: New vaccine cuts hospital stays among older patients\nNews desk: health",
    "Headline: Senate passes budget bill after all-night debate\nNews desk: politics",
    "Headline: Late goal sends underdogs into the cup final\nNews desk: sports",
    "Headline: Chipmaker unveils processor built for faster AI\nNews desk: technology",
] * 20

LETTERS = ["News desk: A B C D E"] * 2
"""So that these are tokens; the teacher has not seen them."""

CHAT = "{% for said in messages %}{{ said.role }}: {{ said.content }}\n{% endfor %}assistant:"

TEACHER_STEPS = 40
"""Enough to learn what a line is, and too few to learn one by heart."""


def make_teacher(folder: Path) -> Path:
    """A causal model of two layers that has seen the corpus for a few steps.

    It babbles in lines, so that what it writes comes to an end.
    """
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CORPUS + LETTERS, vocab_size=600, min_frequency=2, special_tokens=["<s>", "</s>"]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=1024,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    text = "\n\n".join(CORPUS[:6])
    tokens = torch.tensor([tokenizer.encode(text)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(TEACHER_STEPS):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_seq2seq(folder: Path) -> Path:
    """A T5 of two layers a side, as it is drawn."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CORPUS, vocab_size=400, min_frequency=2, special_tokens=["<pad>", "</s>"]
    )
    bpe._tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", bpe.token_to_id("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_encoder(folder: Path) -> Path:
    """An encoder of two layers with a word-piece tokenizer."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(CORPUS, vocab_size=400, min_frequency=1)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=128)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=pieces.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_chooser(encoder: Path, folder: Path) -> Path:
    """A student with a head for choices, as training exports it, but with a head that it drew."""
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    torch.manual_seed(1)
    AutoModelForMultipleChoice.from_pretrained(encoder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def make_writer(teacher: Path, folder: Path) -> Path:
    """A causal student in the same way: the tiny teacher, and how it is asked."""
    shutil.copytree(teacher, folder, dirs_exist_ok=True)
    reading("causal").write(folder)
    return folder


def reading(family: str, **changed: object) -> StudentReading:
    """How a student is asked that reads and writes little."""
    sound = {"head": None, "objective": "sequence", "answer_prefix": "predict: "}
    lengths = {"max_length": 40, "max_answer_length": 12}
    return StudentReading(**{"family": family, **sound, **lengths, **changed})
