"""Near-duplicates: what is found, what is not, and that no bucket grows into n^2 pairs."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import near_duplicates
from pipelines.near_duplicates import RECALL, SLOTS, NearDuplicates, band_width, shingles

POOL = "The city council voted to close the old swimming pool by the river this winter"
LAW = "A quite different matter was reported today by the evening newspapers of the capital"


def firsts(folder, texts, threshold=0.8, batch=5) -> list[int]:
    found = NearDuplicates(folder / "near", threshold)
    for start in range(0, len(texts), batch):
        found.add(texts[start : start + batch])
    return found.firsts().tolist()


def jaccard(left: str, right: str) -> float:
    one, other = set(shingles(left)), set(shingles(right))
    return len(one & other) / len(one | other)


def test_shingles_are_four_characters_of_the_normal_form():
    assert shingles("It's  IN.") == ["it s", "t s ", " s i", "s in"]
    assert shingles("東京で会談") == ["東京で会", "京で会談"]
    assert shingles("abc") == ["abc"]
    assert shingles("?!") == shingles("") == [""]


def test_near_duplicates_name_the_first_of_their_cluster(tmp_path):
    texts = [LAW, POOL, POOL.replace("winter", "winters"), LAW.upper(), POOL.replace("The", "A")]
    assert firsts(tmp_path, texts) == [0, 1, 1, 0, 1]


def test_the_threshold_decides(tmp_path):
    other = POOL.replace("winter", "summer")
    similarity = jaccard(POOL, other)
    assert 0.75 < similarity < 0.95
    for threshold, expected in ((0.6, [0, 0]), (1.0, [0, 1])):
        folder = tmp_path / str(threshold)
        folder.mkdir()
        assert firsts(folder, [POOL, other], threshold) == expected


def test_every_script_and_texts_without_letters_are_compared(tmp_path):
    arabic = "أعلنت الحكومة اليوم عن قانون جديد للعمل والمعاشات في البلاد"
    chinese = "政府今天宣布了一项关于劳动和养老金的新法律草案并将提交议会讨论"
    latin = "Ærø får en ny færge næste år, siger øens borgmester"
    texts = ["", arabic, chinese, "?!", arabic + "!", chinese + "。", "🙂", "a"]
    assert firsts(tmp_path, [*texts, latin, latin.upper()]) == [0, 1, 2, 0, 1, 2, 0, 7, 8, 8]


def test_nothing_is_found_in_nothing(tmp_path):
    assert firsts(tmp_path, []) == []
    empty = NearDuplicates(tmp_path / "other", 0.8)
    empty.add([])
    assert empty.firsts().tolist() == []


words = st.sampled_from(["rates", "rise", "team", "wins", "cup", "law", "new", "doctors"])
texts = st.lists(st.lists(words, max_size=6).map(" ".join), max_size=12)


@settings(deadline=None, max_examples=50)  # each writes two folders of files
@given(texts, st.randoms())
def test_clusters_do_not_depend_on_the_order(tmp_path_factory, given_texts, shuffle):
    def clusters(order):
        shuffled = [given_texts[number] for number in order]
        found = firsts(tmp_path_factory.mktemp("near"), shuffled, threshold=0.5)
        groups = {}
        for number, first in zip(order, found, strict=True):
            groups.setdefault(first, set()).add(number)
        assert all(min(order.index(n) for n in group) == f for f, group in groups.items())
        return sorted(map(sorted, groups.values()))

    order = list(range(len(given_texts)))
    before = clusters(order)
    shuffle.shuffle(order)
    assert clusters(order) == before


@settings(deadline=None, max_examples=30)  # each writes a folder of files
@given(st.lists(st.text(max_size=8), max_size=30), st.integers(1, 7))
def test_equal_texts_are_always_found(tmp_path_factory, once, batch):
    many = once + once[::-1]
    found = firsts(tmp_path_factory.mktemp("near"), many, threshold=1.0, batch=batch)
    assert [found[many.index(text)] for text in many] == found


def test_equal_texts_are_found_in_crowded_buckets(tmp_path, monkeypatch):
    # All share the band, none is near another, and equal ones stand far apart in their bucket.
    base = [f"{POOL} {random.Random(n).randbytes(30).hex()}" for n in range(60)]
    monkeypatch.setattr(near_duplicates, "_mixed", crowded(near_duplicates._mixed))
    found = firsts(tmp_path, base + base, threshold=0.9)
    assert found == [*range(60), *range(60)]


def crowded(mixed):
    """Put all rows into one bucket of every band, but for the whole signature."""

    def keys(columns):
        return mixed(columns) if columns.shape[1] == SLOTS else np.zeros(len(columns), np.uint64)

    return keys


def test_rows_are_compared_with_others_than_the_first_of_their_bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "_mixed", crowded(near_duplicates._mixed))
    assert firsts(tmp_path, [LAW, POOL, POOL + "s"]) == [0, 1, 1]


@pytest.fixture
def compared(monkeypatch):
    """Pairs that are compared, call by call, with all rows in one bucket of every band."""
    found = []
    join = NearDuplicates._join

    def counted(self, first, left, right):
        found.append(len(left))
        join(self, first, left, right)

    monkeypatch.setattr(NearDuplicates, "_join", counted)
    monkeypatch.setattr(near_duplicates, "_mixed", crowded(near_duplicates._mixed))
    return found


def test_equal_rows_are_compared_once_each(tmp_path, compared):
    assert firsts(tmp_path, [POOL] * 5000, batch=1000) == [0] * 5000
    assert sum(compared) == 4999


def test_a_degenerate_bucket_costs_so_many_pairs_a_row_and_not_its_square(tmp_path, compared):
    different = [f"{number} {number * 7919}" for number in range(500)]
    assert firsts(tmp_path, different, threshold=0.9) == list(range(500))
    bands = 1 + SLOTS // band_width(0.9)
    assert sum(compared) <= 500 * bands * (near_duplicates.NEIGHBOURS + 1)


def test_clusters_join_through_rows_between_them(tmp_path):
    chain = [POOL]
    for old, new in (("pool", "pond"), ("winter", "autumn"), ("river", "canal"), ("old", "big")):
        chain.append(chain[-1].replace(old, new))
    assert (
        jaccard(chain[0], chain[-1])
        < 0.6
        < min(itertools.starmap(jaccard, itertools.pairwise(chain)))
    )
    assert firsts(tmp_path, [LAW, *chain], threshold=0.6) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_are_as_wide_as_recall_at_the_threshold_allows(threshold):
    def shared_band(width):
        return 1 - (1 - threshold**width) ** (SLOTS // width)

    width = band_width(threshold)
    assert shared_band(width) >= RECALL
    assert width == SLOTS or shared_band(width + 1) < RECALL


def test_estimates_follow_the_jaccard_similarity(tmp_path):
    chance = random.Random(0)
    pairs = []
    for number in range(200):
        text = " ".join(chance.choice(POOL.split() + LAW.split()) + str(number) for _ in range(12))
        pairs += [text, text.replace(text.split()[3], "changed", 1)]
    found = firsts(tmp_path, pairs, threshold=0.75, batch=50)
    right = [
        (found[n + 1] == n) == (similarity >= 0.75)
        for n in range(0, len(pairs), 2)
        if abs((similarity := jaccard(pairs[n], pairs[n + 1])) - 0.75) > 0.12
    ]
    # Twelve hundredths are three standard errors of the estimate.
    assert len(right) > 20
    assert sum(right) >= len(right) - 1
