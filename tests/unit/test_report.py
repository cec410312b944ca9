"""The report: its verdict by hand-worked numbers, and a page that holds whatever rows hold."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

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
        stage,
        "",
        "cpu-core",
        model,
        startup_seconds=startup,
        useful_seconds=useful,
        idle_seconds=idle,
        **used,
    )
    return d.StageCost(entry, attempts, money, making)


def measured(serving, rates, money, accuracy, tokens=None):
    """The same serving with what an open loop found: by rate, the middle and the slow requests."""
    return replace(
        serving,
        device_seconds_per_thousand=serving.cpu_seconds_per_thousand,
        money_per_thousand=money,
        accuracy=accuracy,
        tokens_in_per_request=tokens,
        tokens_cached_per_request=tokens and tokens - 12,
        objective_ms=1000.0,
        sustained_per_second=max(rate for rate, (_, slow) in rates.items() if slow <= 1000),
        rates=[
            d.RatePoint(rate, 0.98 * rate, 40, 0, middle, slow, 1.2 * slow)
            for rate, (middle, slow) in rates.items()
        ],
    )


def cascade():
    points = [(0.0, 0.0, 0.861), (0.42, 0.08, 0.878), (0.6, 0.21, 0.894), (0.97, 1.0, 0.889)]
    return d.Cascade(
        *("minilm", "gemma raw", 0.01, 0.42, 331, 319, 0.08, 0.878, 0.0007, 0.861, 0.889),
        [d.CascadePoint(*point, 0.0004 + 0.005 * point[1]) for point in points],
    )


def realistic() -> d.ReportData:
    """Such a run as the demonstration makes; the figures are invented for the test."""
    rng = random.Random(0)
    answers = []
    for i in range(180):
        answer, student, teacher = (rng.randrange(5) for _ in range(3))
        answers.append(
            d.Answer(
                f"e{i:011d}",
                rng.choice(HEADLINES),
                answer,
                teacher,
                soft(rng, teacher, 1.5),
                student,
                soft(rng, student, 3),
                rng.choice(["plain", "hard"]),
            )
        )
    disagreements = [a for a in answers if a.student != a.teacher]
    mistakes = [a for a in answers if a.student != a.answer]
    even = break_even(0.0385, 0.00547, 0.000391, 100_000)
    kept = [
        d.TrainingRow(
            f"t{i:011d}",
            rng.choice(HEADLINES),
            i % 5,
            None if i < 5 else soft(rng, i % 5, 2.5),
            "example" if i < 5 else rng.choice(["decomposed", "decomposed", "json"]),
        )
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
            f"r{i:011d}",
            "clean" if reason != "unparseable" else "generate",
            reason,
            details[reason],
            json.dumps({"question": rng.choice(HEADLINES), "intended": i % 5}),
        )
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
            "USD",
            0.0385,
            0.00547,
            0.000391,
            100_000,
            even.requests,
            even.days,
            [d.Price("cpu-core, one hour", 0.048, "assumed for the demonstration")],
        ),
        servings=[
            measured(
                d.Serving(
                    *("Student", "student", 200, 0, 8, "cpu-core", 2),
                    *(21.4, 34.9, 52.2, 341.0, 29.3, 12.1),
                ),
                {
                    85.0: (12.0, 18.1),
                    170.0: (14.0, 25.0),
                    255.0: (30.0, 90.0),
                    307.0: (80.0, 260.0),
                },
                *(0.000391, 0.91),
            ),
            measured(
                d.Serving(
                    *("Teacher, calibrated", "teacher", 200, 0, 8, "cpu-core", 2),
                    *(412.0, 604.0, 881.0, 18.9, 410.0, 11.8),
                ),
                {
                    4.7: (130.0, 210.0),
                    9.4: (160.0, 410.0),
                    14.2: (300.0, 900.0),
                    17.0: (800.0, 2100.0),
                },
                *(0.00547, 0.905, 140.0),
            ),
        ],
        cascade=cascade(),
        stages=[
            cost(
                "generate",
                (96, 806, 22),
                0.0123,
                model="teacher",
                attempts=2,
                rows=1120,
                requests=1164,
                tokens_in=181_240,
                tokens_cached=142_310,
                tokens_out=24_890,
            ),
            cost(
                "score",
                (0, 644, 9),
                0.0087,
                model="teacher",
                rows=1082,
                requests=1082,
                tokens_in=204_100,
                tokens_cached=120_644,
                tokens_out=1_082,
            ),
            cost("clean", (1.2, 0.9, 0), 0.00003, rows=801),
            cost("train", (38, 1260, 14), 0.0175, model="student", rows=801),
            cost(
                "evaluate",
                (12, 380, 3),
                0.0053,
                making=False,
                rows=2600,
                requests=1300,
                tokens_in=231_000,
                tokens_cached=160_000,
                tokens_out=1300,
            ),
            cost(
                "compare",
                (41, 96, 31),
                0.0022,
                making=False,
                rows=400,
                requests=400,
                tokens_in=31_800,
                tokens_cached=18_000,
                tokens_out=400,
            ),
        ],
        ways=[d.Way("decomposed", 1024, 1020, 20, 985, 760), d.Way("json", 128, 100, 2, 97, 41)],
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
                d.Model(
                    "gemma",
                    "teacher",
                    "embedded://gemma-3-270m",
                    "a1b2c3d4e5f60718",
                    "Gemma Terms of Use",
                ),
                d.Model(
                    "minilm",
                    "student",
                    "embedded://all-minilm-l6-v2",
                    "0f1e2d3c4b5a6978",
                    None,
                ),
            ],
            packages={"ray": "2.60.0", "vllm": "0.29.0", "torch": "2.13.0", "deepspeed": "0.19.8"},
            machine={"processor": "2 cores, x86-64", "memory": "15.6 GiB"},
            started="2026-11-23T15:37:30+00:00",
            created="2026-11-23T15:52:09+00:00",
        ),
    )


HOSTILE = (
    '"><img src=x onerror=alert(1)><script>alert("x")</script></style></svg>&amp;{{ 7 * 7 }}'
    " \x00\x1b[31m\u202e\u2066 \u0645\u0631\u062d\u0628\u0627 \ud800 $\\frac{1}{2}$ url(#x) #010101"
)


def with_text(value, text, rows=1):
    """The same data with every string another, and every list of sample rows so much longer."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [with_text(item, text, rows) for item in value]
    if isinstance(value, dict):
        return {f"{i} {text}": with_text(v, text, rows) for i, v in enumerate(value.values())}
    if isinstance(value, d.Samples):
        return d.Samples(value.total, with_text(value.rows, text, rows) * rows)
    if is_dataclass(value):
        kept = {"role", "currency"}  # ours, not a row's
        changed = {
            f.name: with_text(getattr(value, f.name), text, rows)
            for f in fields(value)
            if f.name not in kept
        }
        return replace(value, **changed)
    return value


def empty() -> d.ReportData:
    """What there is to show before anything has run, and with nothing known."""
    none = d.Samples(0, [])
    return replace(
        realistic(),
        warnings=[],
        qualities=[],
        comparison=None,
        confusion=None,
        economics=d.Economics("USD", None, None, None, 1000, None, None),
        servings=[],
        cascade=None,
        stages=[],
        ways=[],
        rejections=[],
        balance=[],
        confidence=None,
        trainings=[],
        kept=none,
        rejected=none,
        disagreements=none,
        mistakes=none,
        provenance=d.Provenance("", "", [], [], {}, {}, None, "2026-11-23T15:52:09+00:00"),
    )


def awkward() -> d.ReportData:
    """Things that a run may lack, one beside the other."""
    data = realistic()
    nothing = d.Score.of(0, 0)
    student = replace(
        data.qualities[3], by_choice=[*data.qualities[3].by_choice[:4], nothing], by_difficulty={}
    )
    return replace(
        data,
        qualities=[*data.qualities[:3], student],
        confusion=d.Confusion("Student", [*data.confusion.counts[:4], [0, 0, 0, 0, 0]]),
        economics=d.Economics("CHF", 12.5, 0.02, 0.03, 1000, math.inf, math.inf),
        servings=[replace(data.servings[0], p99_ms=None, cpu_seconds_per_thousand=None)],
        stages=[replace(data.stages[0], money=None), *data.stages[1:]],
        ways=[d.Way("decomposed", 64, 64, 0, 64, 64), d.Way("json", 0, 0, 0, 0, 0)],
        rejections=[],
        rejected=d.Samples(0, []),
        confidence=d.Histogram.of([]),
        trainings=[
            d.Training("a", [d.Epoch(1, None, None)], None),
            d.Training("b", [d.Epoch(1, 0.5, math.nan)], 1),
        ],
    )


class Page(HTMLParser):
    """Checks that a page is one tree, and collects what it is made of."""

    EMPTY = frozenset({"meta", "input", "br", "path", "use", "rect", "g", "clippath"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.EMPTY
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text.append(text)

    def count(self, name):
        return sum(tag == name for tag, _ in self.tags)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


PAGES = {
    "realistic": realistic,
    "empty": empty,
    "awkward": awkward,
    "hostile": lambda: with_text(realistic(), HOSTILE),
}


@cache
def rendered(name: str) -> str:
    return render(PAGES[name]())


@pytest.fixture(params=list(PAGES))
def html(request) -> str:
    return rendered(request.param)


def test_the_page_is_one_tree_and_needs_nothing_from_elsewhere(html):
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "image", "form"}
        assert not {"src", "srcset", "action", "data", "background"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
        styles = attributes.get("style") or ""
        assert all(place.startswith("#") for place in re.findall(r"url\(\s*(.)", styles))
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert page.count("style") == page.count("script") == 1
    assert len(html.encode()) < 2_000_000


def test_ids_are_unique_and_links_lead_somewhere(html):
    page = Page(html)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for _, a in page.tags if "href" in a}
    wanted |= {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    wanted |= set(re.findall(r'="url\(#([^)]+)\)"', html))
    assert wanted <= set(ids)


def test_headings_are_in_order_and_figures_have_words(html):
    page = Page(html)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    plots = [a for tag, a in page.tags if tag == "div" and "plot" in (a.get("class") or "")]
    assert page.count("svg") == len(plots)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in plots)
    assert all("scope" in a for tag, a in page.tags if tag == "th")


def test_text_of_rows_stays_text():
    page = Page(rendered("hostile"))
    assert "<script>alert" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "[U+202E]" in page.words
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\u2066\ud800]", page.words)
    assert "#010101" in page.words  # a stand-in for a colour in a label is not a colour


def test_long_texts_are_cut_with_a_note_and_the_page_can_still_be_mailed():
    text = (HOSTILE * 12_000)[: 1 << 20]
    html = render(with_text(realistic(), text, rows=3))
    assert "cut here; 1,048,576 characters in all" in html
    assert len(html.encode()) < 2_000_000


def test_lists_give_every_reason_its_turn():
    data = realistic()
    rows = [d.RejectedRow(str(i), "clean", "duplicate", "", "{}") for i in range(500)]
    rows.append(d.RejectedRow("last", "clean", "rare-reason", "", "{}"))
    html = render(replace(data, rejected=d.Samples(9_000, rows)))
    assert "<strong>rare-reason</strong>" in html
    assert "80 of 9,000 are on this page" in html


def test_more_choices_than_a_matrix_holds_are_a_list_of_mistakes():
    names = [f"desk {number}" for number in range(25)]
    counts = [[5 * (right == given) for given in range(25)] for right in range(25)]
    counts[24][3], counts[0][7] = 4, 2
    data = realistic()
    student = replace(data.qualities[3], by_choice=[d.Score.of(5, 9)] * 25)
    teacher = replace(data.qualities[2], by_choice=[d.Score.of(4, 9)] * 25)
    html = render(
        replace(
            data,
            choices=names,
            qualities=[*data.qualities[:2], teacher, student],
            confusion=d.Confusion("Student", counts),
            balance=[d.Balance(i, 9, 9, 9) for i in range(25)],
        )
    )
    assert "Confusion matrix" not in html
    words = Page(html).words
    assert "Right answer Student's answer Rows desk 24 desk 3 4 desk 0 desk 7 2 " in words


def test_nothing_known_is_told_as_unknown_and_never_as_zero():
    words = Page(rendered("empty")).words
    assert "Cost to make the student unknown" in words
    assert "Paid for itself after unknown" in words
    assert "$" not in words
    assert "0.0%" not in words
    assert "The ledger is empty." in words


def test_one_unknown_price_makes_the_sum_unknown():
    words = Page(rendered("awkward")).words
    assert re.search(r"Making the student 2,246 385,340 262,954 25,972 135 2,711 45 unknown", words)
    assert "Measuring it 1,700 262,800 178,000 1,700 53 476 34 CHF 0.0075" in words
    assert "Paid for itself after never" in words


def test_known_figures_stand_on_the_page():
    words = Page(rendered("realistic")).words
    for told in (
        "Student 74.8% 95% interval 71.3 to 78.0",
        "Teacher 71.7% 95% interval 68.1 to 75.0",
        "$0.000391 1/14 of the cost",
        "Cost to make the student $0.0385",
        "Paid for itself after 7,590 requests",
        "Paid for itself in 109 minutes at 100,000 requests a day",
        "json 128 100 2 97 41 32.0%",
        "disagrees clean 189 47 236",
    ):
        assert told in words
    tokens = [(s.entry.tokens_cached, s.entry.tokens_in) for s in realistic().stages]
    cached, all_in = map(sum, zip(*tokens, strict=True))
    assert f"tokens in prompts, {100 * cached / all_in:.1f}% came from a prefix cache" in words


def test_the_twin_for_machines_is_the_same_data():
    twin = json.loads(d.to_json(awkward()))
    assert twin["economics"]["break_even_requests"] == "never"
    assert twin["stages"][0]["money"] is None
    assert twin["stages"][0]["entry"]["tokens_in"] == 181_240
    assert twin["trainings"][1]["epochs"][0]["validation_loss"] is None
    assert twin["qualities"][0]["score"] == {
        "correct": 338,
        "total": 650,
        "low": pytest.approx(0.4816, abs=1e-4),
        "high": pytest.approx(0.5582, abs=1e-4),
    }
    json.loads(d.to_json(with_text(realistic(), HOSTILE)))


# The verdict. 14 times dearer, and 2.1892 to make: 2.1892 / (0.56 - 0.04) * 1000 = 4,210 requests.


def judged(paired=(400, 100, 20, 130), prices=(2.1892, 0.56, 0.04), traffic=1000, servings=None):
    both, student, teacher, _ = paired
    data = realistic()
    even = break_even(*prices, traffic)
    score = {"Student": both + student, "Teacher, calibrated": both + teacher}
    return verdict(
        replace(
            data,
            qualities=[
                replace(q, score=d.Score.of(score.get(q.name, 338), 650)) for q in data.qualities
            ],
            comparison=d.Comparison("Student", "Teacher, calibrated", d.Paired(*paired)),
            economics=d.Economics("USD", *prices, traffic, even.requests, even.days),
            servings=data.servings if servings is None else servings,
        )
    )


PAID = "it has paid for itself after 4,210 requests."


@pytest.mark.parametrize(
    ("paired", "sentence"),
    [
        # (100 - 20) / 650 = 12.3 points
        ((400, 100, 20, 130), "The student answers 12.3 points better than its teacher"),
        # (36 - 30) / 650 = 0.9 points, of 66 rows on which they differ
        (
            (430, 36, 30, 154),
            "The student answers 0.9 points better than its teacher, within the margin of error,",
        ),
        (
            (430, 30, 36, 154),
            "The student answers 0.9 points worse than its teacher, within the margin of error,",
        ),
        # (10 - 80) / 650 = -10.8 points
        (
            (380, 10, 80, 180),
            "The student is clearly worse: it answers 10.8 points below its teacher",
        ),
        ((430, 33, 33, 154), "The student answers as well as its teacher"),
    ],
)
def test_the_verdict_on_quality(paired, sentence):
    assert judged(paired).sentence == f"{sentence} at 1/14 of the cost; {PAID}"


@pytest.mark.parametrize(
    ("prices", "ending"),
    [
        ((2.0, 1.0, 0.29), "at 29% of the cost; it has paid for itself after 2,820 requests."),
        ((2.0, 0.5, 0.6), "at 1.2 times the cost; it never pays for itself."),
        ((2.0, 0.5, 0.5), "at the same cost; it never pays for itself."),
        (
            (None, 0.56, 0.04),
            "at 1/14 of the cost; what it cost to make is unknown, and so is when it has paid "
            "for itself.",
        ),
        (
            (2.0, None, 0.04),
            "with 1/14 of the CPU time; a price is missing, so what that saves is unknown.",
        ),
        # 520,000 / 0.52 * 1000 = 1e9 requests, at a thousand a day 1e6 days
        (
            (520_000, 0.56, 0.04),
            "at 1/14 of the cost; it has paid for itself after 1.00 billion requests, "
            "which is 2,738 years at the stated traffic.",
        ),
    ],
)
def test_the_verdict_on_cost(prices, ending):
    assert judged(prices=prices).sentence.endswith(f"better than its teacher {ending}")


def test_the_verdict_without_prices_or_measurements():
    told = judged(prices=(None, None, None), servings=[])
    assert told.sentence.endswith("better than its teacher at a cost that is unknown.")
    assert verdict(empty()).sentence == (
        "Nobody knows yet how well the student answers. It does so at a cost that is unknown."
    )


def test_the_verdict_shows_what_it_rests_on():
    assert judged((430, 36, 30, 154)).evidence == (
        "71.7% against 70.8% over 650 held-out rows: +0.9 points, "
        "95% interval \N{MINUS SIGN}1.5 to +3.4 (paired, on the same rows)."
    )


# Intervals, against the examples that Newcombe printed in the three papers of 1998.


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((81, 263), (0.2553, 0.3662)),
        ((15, 148), (0.0624, 0.1605)),
        ((0, 20), (0.0, 0.1611)),
        ((1, 29), (0.0061, 0.1718)),
    ],
)
def test_wilson_interval(counts, interval):
    assert wilson(*counts) == pytest.approx(interval, abs=5e-5)


def test_wilson_interval_at_the_ends():
    assert wilson(0, 0) is None
    assert wilson(7, 7)[1] == 1.0
    assert wilson(0, 7)[0] == 0.0


@pytest.mark.parametrize(
    ("first", "second", "interval"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_difference_of_two_groups(first, second, interval):
    assert difference(first, second) == pytest.approx(interval, abs=5e-5)


def test_difference_of_pairs():
    assert paired_difference(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert paired_difference(0, 0, 0, 0) is None
    low, high = paired_difference(408, 78, 58, 106)
    loose_low, loose_high = difference((486, 650), (466, 650))
    assert loose_low < low < 20 / 650 < high < loose_high


# Words.


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "unknown"),
        (math.inf, "never"),
        (0.4, "1"),
        (4210.0, "4,210"),
        (4211, "4,220"),
        (999.5, "1,000"),
        (1_240_000, "1.24 million"),
        (0, "0"),
    ],
)
def test_requests(value, told):
    assert wording.requests(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "unknown"),
        (0.000391, "$0.000391"),
        (0.5, "$0.500"),
        (12.5, "$12.50"),
        (1234.5, "$1,234"),
        (0, "$0.00"),
        (math.nan, "unknown"),
    ],
)
def test_money(value, told):
    assert wording.money(value, "USD") == told


def test_a_column_of_money_has_the_decimals_of_its_largest():
    amounts = [0.0123, 0.00003, None, 0.0]
    assert wording.money_column(amounts, "EUR") == ["€0.0123", "<€0.0001", "unknown", "€0.0000"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.inf, "never"),
        (800, "2.2 years"),
        (30.2, "30 days"),
        (0.5, "12 hours"),
        (1 / 24, "60 minutes"),
        (0.00001, "0.86 seconds"),
    ],
)
def test_days(value, told):
    assert wording.days(value) == told


def test_colours_have_the_contrast_that_reading_needs():
    css = rendered("empty")
    light, dark = re.findall(r":root \{([^}]*)\}", css)[:2]

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for name, least in {
            "ink": 7,
            "muted": 4.5,
            "student": 4.5,
            "teacher": 4.5,
            "baseline": 3,
            "first": 3,
            "second": 3,
            "third": 3,
        }.items():
            for ground in ("paper", "shade"):
                pair = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, ground)
