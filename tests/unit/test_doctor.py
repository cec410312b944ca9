"""The doctor tells what must be mended from what only some recipes need."""

from stillhouse import doctor
from stillhouse.doctor import Finding, examine


def sound(monkeypatch) -> None:
    """A machine that lacks nothing but what a test takes away."""
    for name in ("_system", "_packages", "_models"):
        monkeypatch.setattr(doctor, name, lambda: iter([Finding("Python", "3.11")]))


def test_without_the_embedded_models_a_machine_is_sound(monkeypatch, capsys):
    models = doctor._models
    sound(monkeypatch)
    monkeypatch.setattr(doctor, "_models", models)
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert examine()
    told = capsys.readouterr().out
    assert "!  embedded://gemma-3-270m" in told
    assert "requirements/cpu.lock" in told


def test_what_every_recipe_needs_must_be_mended(monkeypatch, capsys):
    packages = doctor._packages
    sound(monkeypatch)
    monkeypatch.setattr(doctor, "_packages", packages)
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert not examine()
    assert "✗  ray" in capsys.readouterr().out


def test_a_compiler_is_wanted_for_what_compiles(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    found = {finding.what: finding for finding in doctor._system()}
    assert "vLLM" in found["g++"].mend
    assert not [finding for finding in found.values() if "DeepSpeed" in finding.mend]
