"""The same training by the command line in several forms: its losses must be the same.

What may not matter: how many workers there are, how optimizer and weights are divided among them,
and in how many passes a batch goes through.
"""

from __future__ import annotations

import json

import pytest

from tests.commands import fresh_command as command
from tests.training_case import draw_headlines
from tests.unit.test_recorded import write_lines

RECIPE = """\
name: invariance
method: frontier
inputs: {{file: train.jsonl}}
teachers:
  palm: {{backend: recorded, model: palm-540b, files: [palm.jsonl]}}
ask:
  palm: {{prompt: "{{{{ question }}}}"}}
task:
  kind: text
  prompt: "{{{{ question }}}}"
  answer:
    pattern: 'So (.*)'
    rationale_pattern: '^(.*?)So'
students:
  writer:
    family: causal
    model: {base}
    train:
      epochs: 2
      batch_size: 8
      learning_rate: 2.0e-3
      max_length: 32
      validation_share: 0
      objective: {{kind: sequence, rationale_weights: {{palm: 0.5}}}}
"""
ROWS = 90
"""Twelve steps an epoch, the last with two rows."""

FORMS = {
    "one worker": {},
    "one row at a time": {"micro_batch_size": 1},
    "two workers": {"workers": 2},
    "ZeRO 2": {"workers": 2, "zero_stage": 2},
    "ZeRO 2, two rows at a time": {"workers": 2, "zero_stage": 2, "micro_batch_size": 2},
    "ZeRO 3": {"workers": 2, "zero_stage": 3},
}


@pytest.fixture(scope="module")
def folder(tiny_teacher, tmp_path_factory):
    """A recipe and the rows that it names."""
    folder = tmp_path_factory.mktemp("invariance")
    (folder / "recipe.yaml").write_text(RECIPE.format(base=tiny_teacher))
    rows = draw_headlines(ROWS)
    questions = [f"{number} {headline}" for number, (_, headline) in enumerate(rows)]
    write_lines(folder / "train.jsonl", [{"question": question} for question in questions])
    records = [
        {"prompt": question, "text": f"{headline.split()[0]} is of {topic}. So {topic}"}
        for question, (topic, headline) in zip(questions, rows, strict=True)
    ]
    write_lines(folder / "palm.jsonl", records)
    return folder


def losses(folder, name, settings):
    """Of every step."""
    run = name.replace(" ", "-")
    changes = [f"--set=students.writer.train.{key}={value}" for key, value in settings.items()]
    done = command(
        folder,
        "run",
        "recipe.yaml",
        "--run",
        run,
        "--until",
        "train-writer",
        *changes,
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    (file,) = (folder / run).glob("stages/train-writer/*/metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_losses_do_not_depend_on_how_the_work_is_divided(folder):
    found = {name: losses(folder, name, settings) for name, settings in FORMS.items()}
    plain = found["one worker"]
    assert len(plain) == 24
    assert plain[-1] < 0.8 * plain[0], "it learns"
    for name, steps in found.items():
        assert steps == pytest.approx(plain, rel=1e-3), name
