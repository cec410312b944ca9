"""The report: its verdict by hand-worked numbers, and a page that holds whatever rows hold."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from core.ledger import Entry, break_even
from stillhouse.report import data as d
from stillhouse.report import wording
from stillhouse.report.intervals import difference, paired_difference, wilson
from stillhouse.report.page import render
from stillhouse.report.verdict import verdict

CHOICES = ["business", "health", "politics", "sports", "technology"]
HEADLINES = [
    "Shipping firm cuts guidance after a slow quarter",
    "Airline orders forty narrow-body jets",
    "Clinic trial finds fewer migraines with weekly dose",
    "Flu season arrives early in the north",
    "Parliament votes to widen postal ballots",
    "Mayor vetoes the parking levy a second time",
    "Goalkeeper signs on for two more seasons",
    "Sprinter breaks the indoor record in Torun",
    "Phone maker moves its maps to open data",
    "Patch closes a hole in home routers",
    "Football club posts record loss after stadium delay",
    "Hospital group sues its software supplier",
]


def soft(rng: random.Random, first: int, strength: float) -> list[float]:
    weights = [rng.random() + (strength if i == first else 0) for i in range(len(CHOICES))]
    return [w / sum(weights) for w in weights]


def spread(correct: int, total: int, parts: int) -> list[d.Score]:
    """Right answers spread over the choices, a little unevenly."""
    each, size = correct // parts, total // parts
    shift = [9, -4, 4, -12, 3]
    return [d.Score.of(each + shift[i % 5], size) for i in range(parts)]


def quality(name, role, correct, hard, by_choice=None):
    return d.Quality(
        name,
        role,
        d.Score.of(correct, 650),
        {"plain": d.Score.of(correct - hard, 550), "hard": d.Score.of(hard, 100)},
        by_choice or spread(correct, 650, 5),
    )


def cost(stage, device_seconds, money, *, model="", making=True, attempts=1, **used):
    startup, useful, idle = device_seconds
    entry = Entry(
        stage, "", "cpu-core", model,
        startup_seconds=startup, useful_seconds=useful, idle_seconds=idle, **used,
    )  # fmt: skip
    return d.StageCost(entry, attempts, money, making)


def realistic() -> d.ReportData:
    """Such a run as the demonstration makes; the figures are invented for the test."""
    rng = random.Random(0)
    answers = []
    for i in range(180):
        answer, student, teacher = (rng.randrange(5) for _ in range(3))
        answers.append(
            d.Answer(
                f"e{i:011d}", rng.choice(HEADLINES), answer,
                teacher, soft(rng, teacher, 1.5), student, soft(rng, student, 3),
                rng.choice(["plain", "hard"]),
            )  # fmt: skip
        )
    disagreements = [a for a in answers if a.student != a.teacher]
    mistakes = [a for a in answers if a.student != a.answer]
    even = break_even(0.0385, 0.00547, 0.000391, 100_000)
    kept = [
        d.TrainingRow(
            f"t{i:011d}", rng.choice(HEADLINES), i % 5,
            None if i < 5 else soft(rng, i % 5, 2.5),
            "example" if i < 5 else rng.choice(["decomposed", "decomposed", "json"]),
        )  # fmt: skip
        for i in range(140)
    ]
    details = {
        "duplicate": "The same question was generated before.",
        "unparseable": "The answer is not the JSON that was asked for.",
        "disagrees": "The teacher's first choice is not the one that it wrote for.",
        "empty": "The question has no text.",
    }
    rejected = [
        d.RejectedRow(
            f"r{i:011d}", "clean" if reason != "unparseable" else "generate", reason,
            details[reason], json.dumps({"question": rng.choice(HEADLINES), "intended": i % 5}),
        )  # fmt: skip
        for i, reason in enumerate(list(details) * 12)
    ]
    return d.ReportData(
        name="news-desks",
        method="Few-shot multiple choice (2412.09807)",
        instruction="Sort a news headline to the desk whose editors would run it.",
        choices=CHOICES,
        warnings=[
            "One person wrote, labelled and re-read the evaluation rows; real traffic will differ.",
            "Prices of devices are assumptions; put your contract's own into the price book.",
        ],
        qualities=[
            quality("Five examples alone", "baseline", 338, 41),
            quality("Teacher, raw", "teacher", 429, 52),
            quality("Teacher, calibrated", "teacher", 466, 55),
            quality(
                "Student", "student", 486, 57, [d.Score.of(n, 130) for n in (103, 99, 94, 88, 102)]
            ),
        ],
        comparison=d.Comparison("Student", "Teacher, calibrated", d.Paired(408, 78, 58, 106)),
        confusion=d.Confusion(
            "Student",
            [
                [103, 4, 12, 1, 10],
                [6, 99, 9, 4, 12],
                [15, 6, 94, 5, 10],
                [13, 8, 14, 88, 7],
                [11, 6, 7, 4, 102],
            ],
        ),
        economics=d.Economics(
            "USD", 0.0385, 0.00547, 0.000391, 100_000, even.requests, even.days,
            [d.Price("cpu-core, one hour", 0.048, "assumed for the demonstration")],
        ),  # fmt: skip
        servings=[
            d.Serving(
                "Student", "student", 200, 0, 8, "cpu-core", 2, 21.4, 34.9, 52.2, 341.0, 29.3
            ),
            d.Serving(
                "Teacher, calibrated", "teacher", 200, 0, 8, "cpu-core", 2,
                412.0, 604.0, 881.0, 18.9, 410.0,
            ),
        ],  # fmt: skip
        stages=[
            cost(
                "generate", (96, 806, 22), 0.0123, model="teacher", attempts=2, rows=1120,
                requests=1164, tokens_in=181_240, tokens_cached=142_310, tokens_out=24_890,
            ),
            cost(
                "score", (0, 644, 9), 0.0087, model="teacher", rows=1082,
                requests=1082, tokens_in=204_100, tokens_cached=120_644, tokens_out=1_082,
            ),
            cost("clean", (1.2, 0.9, 0), 0.00003, rows=801),
            cost("train", (38, 1260, 14), 0.0175, model="student", rows=801),
            cost("evaluate", (12, 380, 3), 0.0053, making=False, rows=2600, requests=1300,
                 tokens_in=231_000, tokens_cached=160_000, tokens_out=1300),
            cost("compare", (41, 96, 31), 0.0022, making=False, rows=400, requests=400,
                 tokens_in=31_800, tokens_cached=18_000, tokens_out=400),
        ],  # fmt: skip
        ways=[d.Way("decomposed", 1024, 1020, 985, 760), d.Way("json", 128, 100, 97, 41)],
        rejections=[
            d.Rejection("clean", "disagrees", "decomposed", 189),
            d.Rejection("clean", "disagrees", "json", 47),
            d.Rejection("clean", "duplicate", "decomposed", 71),
            d.Rejection("generate", "unparseable", "json", 28),
            d.Rejection("clean", "duplicate", "json", 12),
            d.Rejection("generate", "empty", "decomposed", 4),
        ],
        balance=[
            d.Balance(i, 224, teacher, final)
            for i, (teacher, final) in enumerate(
                [(271, 180), (203, 158), (236, 166), (188, 149), (184, 153)]
            )
        ],
        confidence=d.Histogram.of(min(max(rng.gauss(0.68, 0.2), 0.21), 0.999) for _ in range(1082)),
        trainings=[
            d.Training(
                "Student",
                [
                    d.Epoch(i + 1, train, valid)
                    for i, (train, valid) in enumerate(
                        [(1.48, 1.21), (1.12, 0.98), (0.93, 0.91), (0.82, 0.90), (0.74, 0.93)]
                    )
                ],
                4,
            )
        ],
        kept=d.Samples(806, kept),
        rejected=d.Samples(351, rejected),
        disagreements=d.Samples(len(disagreements), disagreements),
        mistakes=d.Samples(164, mistakes),
        provenance=d.Provenance(
            run="/home/someone/runs/news-desks",
            recipe="name: news-desks\nmethod: mcqa\nseed: 0\ntask:\n  choices:\n"
            + "".join(f"  - {c}\n" for c in CHOICES),
            stages=[
                d.StageFact("generate", "4f1c09aa7be2d810", 1120, 32, "2026-11-23T15:40:11+00:00"),
                d.StageFact("score", "90be11d2c4a70356", 1082, 0, "2026-11-23T15:44:02+00:00"),
                d.StageFact("train", "c7d0e95f21b84a6e", 806, 0, "2026-11-23T15:49:48+00:00"),
            ],
            models=[
                d.Model("gemma", "teacher", "embedded://gemma-3-270m", "a1b2c3d4e5f60718",
                        "Gemma Terms of Use", 268_000_000),
                d.Model("minilm", "student", "embedded://all-minilm-l6-v2", "0f1e2d3c4b5a6978",
                        None, 22_700_000),
            ],
            packages={"ray": "2.60.0", "vllm": "0.29.0", "torch": "2.13.0", "deepspeed": "0.19.8"},
            machine={"processor": "2 cores, x86-64", "memory": "15.6 GiB"},
            started="2026-11-23T15:37:30+00:00",
            created="2026-11-23T15:52:09+00:00",
        ),  # fmt: skip
    )
