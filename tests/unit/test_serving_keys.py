"""API keys: what the file holds, and how often a caller may ask."""

import stat

import pytest

from core.errors import UseError
from core.recipe_serving import ApiKeys
from serving.keys import Caller, Key, KeyRing, hash_of, new_key, read_keys
from stillhouse.key_file import add_key, revoke_key


def test_a_file_holds_hashes_and_no_keys(tmp_path):
    file = tmp_path / "keys.yaml"
    first, second = add_key(file, "search-team", None), add_key(file, "desk", 60)
    assert first != second
    text = file.read_text()
    assert first not in text
    assert second not in text
    found = read_keys(text, "keys.yaml").keys
    assert [key.name for key in found] == ["search-team", "desk"]
    assert [key.requests_per_minute for key in found] == [None, 60]
    assert found[0].sha256 == hash_of(first)
    assert not stat.S_IMODE(file.stat().st_mode) & stat.S_IWOTH


def test_a_name_is_given_once_and_can_be_revoked(tmp_path):
    file = tmp_path / "keys.yaml"
    add_key(file, "desk", 60)
    with pytest.raises(UseError, match="there is a key of this name"):
        add_key(file, "desk", None)
    with pytest.raises(UseError, match="no such key"):
        revoke_key(file, "nobody")
    with pytest.raises(UseError, match=r"keys\.1\.name"):
        add_key(file, "No Name!", None)
    revoke_key(file, "desk")
    assert read_keys(file.read_text(), "keys.yaml").keys[0].revoked


@pytest.mark.parametrize(
    "text", ["keys: [", "keys: 3", "- a", "keys: [{name: a, sha256: abc}]", "keys: []\nmore: 1"]
)
def test_a_file_that_is_none_is_refused_without_its_content(text):
    with pytest.raises(UseError) as told:
        read_keys(text, "keys.yaml")
    assert "abc" not in str(told.value)


def test_a_caller_may_ask_so_often_in_any_minute():
    caller = Caller(Key(name="desk", sha256="0" * 64, requests_per_minute=3))
    assert [caller.wait(now) for now in (0.0, 10.0, 59.0)] == [0, 0, 0]
    assert caller.wait(59.5) == pytest.approx(0.5)  # until a minute after the first
    assert caller.wait(60.0) == 0
    assert caller.wait(61.0) == pytest.approx(9)  # the one at 10 s, then
    assert caller.wait(70.0) == 0


def test_a_ring_follows_its_file_and_keeps_what_it_knows_while_that_is_broken(tmp_path):
    file = tmp_path / "keys.yaml"
    key = add_key(file, "desk", 1)
    now = 0.0
    ring = KeyRing(ApiKeys(file=str(file)), clock=lambda: now)
    caller = ring.caller(key)
    assert caller is not None
    assert ring.wait(caller) == 0
    assert ring.caller(new_key()) is None
    file.write_text("keys: [")
    now = 2.0
    assert ring.caller(key) is not None
    file.unlink()
    now = 4.0
    assert ring.caller(key) is not None
    other = add_key(file, "other", None)
    now = 6.0
    assert ring.caller(key) is None
    assert ring.caller(other) is not None


def test_another_key_in_the_file_does_not_reset_a_limit(tmp_path):
    file = tmp_path / "keys.yaml"
    key = add_key(file, "desk", 1)
    now = 0.0
    ring = KeyRing(ApiKeys(file=str(file)), clock=lambda: now)
    assert ring.wait(ring.caller(key)) == 0
    add_key(file, "other", None)
    now = 2.0
    assert ring.wait(ring.caller(key)) == pytest.approx(58)


def test_keys_of_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys.yaml"
    key = add_key(file, "desk", None)
    with pytest.raises(UseError, match="no such variable"):
        KeyRing(ApiKeys(env="DESK_KEYS"))
    monkeypatch.setenv("DESK_KEYS", file.read_text())
    assert KeyRing(ApiKeys(env="DESK_KEYS")).caller(key).key.name == "desk"
