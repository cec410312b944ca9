"""A recipe is read strictly, and every error names its line and what would be right."""

import json
import re
import shutil
from pathlib import Path

import pytest

from core.errors import UseError
from core.recipe_file import file_schema, load_recipe
from stillhouse.methods import lay_out, recipe_model

RECIPE = """\
name: routing
method: fewshot_mcqa
task:
  instruction: Say which desk.
  choices: [business, sports]
  examples: examples.jsonl
  evaluation: evaluation.jsonl
teachers:
  small:
    model: embedded://gemma-3-270m
    device: {kind: cpu-core, cpus: 2}
generate:
  teacher: small
  decomposed: {rows: 10}
  json: {rows: 2}
score:
  teacher: small
students:
  encoder:
    model: embedded://all-minilm-l6-v2
    train:
      epochs: 2
profiles:
  local:
    generate: {decomposed: {rows: 3}}
    students: {encoder: {train: {epochs: 1, learning_rate: 1.0e-3}}}
  broken:
    generate:
      decomposed: {rows: none}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    return tmp_path


def load(folder: Path, text: str = RECIPE, profile=None, settings=()):
    file = folder / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file, recipe_model, profile, settings).recipe


def refuse(folder: Path, old: str, new: str, **options) -> UseError:
    assert old in RECIPE
    with pytest.raises(UseError) as caught:
        load(folder, RECIPE.replace(old, new), **options)
    return caught.value


def line_of(text: str, error: UseError) -> str:
    """The line of a recipe that an error points to."""
    number = re.search(r"line (\d+)", error.place)
    assert number, error.place
    return text.splitlines()[int(number[1]) - 1].strip()


def test_a_sound_recipe_is_read(folder):
    recipe = load(folder)
    assert recipe.generate.decomposed.rows == 10
    assert recipe.generate.json_items.rows == 2
    assert recipe.students["encoder"].train.epochs == 2
    assert recipe.teachers["small"].device.count == 2


def test_a_profile_changes_what_it_names_and_keeps_the_rest(folder):
    recipe = load(folder, profile="local")
    assert recipe.generate.decomposed.rows == 3
    assert recipe.generate.json_items.rows == 2
    assert recipe.students["encoder"].train.epochs == 1
    assert recipe.students["encoder"].train.learning_rate == 1e-3


def test_a_setting_beats_a_profile(folder):
    settings = ["students.encoder.train.epochs=7", "task.choices.1=golf"]
    (folder / "examples.jsonl").write_text('{"question": "Who?", "answer": "golf"}\n')
    recipe = load(folder, profile="local", settings=settings)
    assert recipe.students["encoder"].train.epochs == 7
    assert recipe.task.choices == ["business", "golf"]


def test_an_unknown_key_names_its_line_and_the_nearest_key(folder):
    text = RECIPE.replace("epochs: 2", "epocs: 2")
    error = refuse(folder, "epochs: 2", "epocs: 2")
    assert line_of(text, error) == "epocs: 2"
    assert "students.encoder.train.epocs" in error.cause
    assert error.mend == "Did you mean 'epochs'?"


def test_an_unknown_key_deep_in_a_flow_mapping(folder):
    error = refuse(folder, "cpus: 2}", "cores: 2}")
    assert "teachers.small.device.cores" in error.cause


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epochs: 2", "epochs: two", "students.encoder.train.epochs"),
        ("epochs: 2", "epochs: 2.5", "students.encoder.train.epochs"),
        ("epochs: 2", "epochs: 0", "students.encoder.train.epochs"),
        ("name: routing", "name: Routing desk", "name"),
        ("{rows: 10}", "{}", "generate.decomposed.rows"),
        ("choices: [business, sports]", "choices: [business]", "task.choices"),
        ("choices: [business, sports]", "choices: [a, A]", "task"),
        ("choices: [business, sports]", "choices: [yes, no]", "task.choices.0"),
        ("  teacher: small\n  decomposed", "  teacher: big\n  decomposed", "the recipe"),
    ],
)
def test_a_wrong_value_names_its_key(folder, old, new, key):
    error = refuse(folder, old, new)
    assert f"'{key}'" in error.cause
    assert str(folder / "recipe.yaml") in error.place
    assert error.exit_status == 2


@pytest.mark.parametrize(
    ("score", "cause"),
    [
        ("permutations: 2", "set labels to letters"),
        ("labels: letters\n  permutations: 3", "2 choices are shown in 2 ways at most"),
        ("labels: numbers", "score.labels"),
    ],
)
def test_permutations_that_cannot_be_are_refused(folder, score, cause):
    assert cause in refuse(folder, "score:\n", f"score:\n  {score}\n").cause


def test_letters_stand_for_26_choices_at_most(folder):
    def letters(choices):
        settings = [f"task.choices=[{', '.join(f'c{n}' for n in range(choices))}]"]
        return load(folder, settings=[*settings, "score.labels=letters", "score.permutations=52"])

    assert letters(26).score.permutations == 52
    with pytest.raises(UseError, match="cannot stand for 27 choices"):
        letters(27)


@pytest.mark.parametrize("value", ["!foo bar", "2024-13-45", "!!bool maybe", "!!timestamp x"])
def test_a_value_that_yaml_does_not_have_names_its_line(folder, value):
    error = refuse(folder, "name: routing", f"name: {value}")
    assert error.place.endswith("line 1")
    assert "quotes" in error.mend


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: " + "[" * 5_000 + "]" * 5_000])
def test_a_recipe_without_end_is_refused(folder, text):
    with pytest.raises(UseError):
        load(folder, text)


@pytest.mark.parametrize(
    ("profiles", "line", "cause"),
    [
        ("profiles:", "profiles:", "'profiles' is no mapping"),
        ("profiles: 3", "profiles: 3", "'profiles' is no mapping"),
        ("profiles: {local: }", "profiles: {local: }", "'local' is no mapping"),
        ("profiles:\n  local: [1]", "local: [1]", "'local' is no mapping"),
    ],
)
@pytest.mark.parametrize("profile", [None, "local"])
def test_profiles_that_change_nothing_are_refused(folder, profiles, line, cause, profile):
    text = RECIPE[: RECIPE.index("profiles:")] + profiles + "\n"
    with pytest.raises(UseError) as caught:
        load(folder, text, profile=profile)
    assert cause in caught.value.cause
    assert line_of(text, caught.value) == line


@pytest.mark.parametrize(
    ("written", "right"),
    [("1e-4", "1.0e-4"), ("2.5e3", "2.5e+3"), ("1.E5", "1.e+5")],
)
def test_a_number_that_yaml_reads_as_text_is_told_as_yaml_wants_it(folder, written, right):
    key = "students.encoder.train.learning_rate"
    with pytest.raises(UseError) as caught:
        load(folder, settings=[f"{key}={written}"])
    assert caught.value.mend == f"YAML reads {written} as text: write {right}."
    assert load(folder, settings=[f"{key}={right}"])


def test_a_boolean_choice_is_told_about_quotes(folder):
    error = refuse(folder, "choices: [business, sports]", "choices: [yes, no]")
    assert "quotes" in error.mend


def test_one_choice_is_no_choice(folder):
    error = refuse(folder, "choices: [business, sports]", "choices: [business]")
    assert error.mend == "Give at least two."


def test_a_mistake_in_a_profile_points_into_the_profile(folder):
    error = refuse(folder, "epochs: 2", "epochs: 2", profile="broken")
    assert line_of(RECIPE, error) == "decomposed: {rows: none}"


def test_a_mistake_in_a_setting_names_the_setting(folder):
    error = refuse(folder, "epochs: 2", "epochs: 2", settings=["generate.decomposed.rows=-1"])
    assert error.place == "--set generate.decomposed.rows=-1"


@pytest.mark.parametrize("setting", ["rows", "=3", "task.choices.9=x", "name.first=x"])
def test_a_setting_that_leads_nowhere_is_refused(folder, setting):
    with pytest.raises(UseError) as caught:
        load(folder, settings=[setting])
    assert caught.value.place.startswith("--set ")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("name: a\nname: b\n", "stands here twice"),
        ("name: [a\n", "not YAML"),
        ("- a\n", "a mapping"),
        ("", "a mapping"),
        ("name: a\nmethod: alchemy\n", "no method 'alchemy'"),
        ("name: a\n", "'method' is missing"),
    ],
)
def test_what_is_no_recipe_is_refused(folder, text, cause):
    with pytest.raises(UseError, match=cause):
        load(folder, text)


def test_invalid_utf8_names_the_line(folder):
    file = folder / "recipe.yaml"
    file.write_bytes(b"name: a\nmethod: \xff\n")
    with pytest.raises(UseError) as caught:
        load_recipe(file, recipe_model)
    assert caught.value.place.endswith("line 2")


def test_missing_files_are_named(folder):
    with pytest.raises(UseError, match="no such recipe"):
        load_recipe(folder / "absent.yaml", recipe_model)
    (folder / "examples.jsonl").unlink()
    with pytest.raises(UseError) as caught:
        load(folder)
    assert "task.examples" in caught.value.cause
    assert line_of(RECIPE, caught.value) == "examples: examples.jsonl"


def test_an_unknown_profile_lists_the_known_ones(folder):
    with pytest.raises(UseError, match=r"local, broken"):
        load(folder, profile="cloud")


RECIPES = Path(__file__).parents[2] / "recipes"
CQA_PALM = [f"cqa_palm/{name}.jsonl" for name in ("train", "test", "palm_train", "palm_test")]
OBQA = [f"tinyllm/obqa_{name}.jsonl" for name in ("train", "test", "flan_train")]
BROUGHT = {
    "assistant_signals.yaml": CQA_PALM,
    "cqa_palm.yaml": CQA_PALM,
    "explanation_rate.yaml": CQA_PALM,
    "openbookqa.yaml": OBQA,
}
"""Files that are not the project's: a script writes them beside the recipe."""


@pytest.mark.parametrize(
    "file",
    # A price book stands beside them.
    [file for file in sorted(RECIPES.glob("*.yaml")) if "\nmethod:" in file.read_text()],
    ids=lambda file: file.name,
)
def test_the_recipes_that_come_with_stillhouse_are_sound(file, tmp_path):
    shutil.copytree(RECIPES, tmp_path, dirs_exist_ok=True)
    for name in BROUGHT.get(file.name, []):
        (tmp_path / name).touch()
    loaded = load_recipe(tmp_path / file.name, recipe_model)
    assert loaded.recipe.name
    names = [stage.name for stage in lay_out(loaded)]
    assert len(set(names)) == len(names)
    # A run keeps it as JSON. Read back, it must be the same: otherwise a command on the run would
    # find stages changed, and do them again.
    kept = json.dumps(loaded.recipe.model_dump(by_alias=True))
    again = type(loaded.recipe).model_validate(json.loads(kept))
    assert json.dumps(again.model_dump(by_alias=True)) == kept


def test_another_backend_has_keys_of_its_own(folder):
    endpoint = "{backend: openai, model: m, base_url: 'http://host/v1', device: {cpus: 2}}"
    with pytest.raises(UseError, match=r"'teachers.far.device' is not a key") as caught:
        load(folder, settings=[f"teachers.far={endpoint}"])
    assert "base_url" in caught.value.mend
    with pytest.raises(UseError, match=r"'teachers.far"):
        load(folder, settings=["teachers.far={backend: oracle}"])


def test_replicas_are_a_number_or_two(folder):
    def bounds(value):
        recipe = load(folder, settings=[f"teachers.small.replicas={value}"])
        return recipe.teachers["small"].replica_bounds

    assert (bounds("3").min, bounds("3").max) == (3, 3)
    assert (bounds("{min: 1, max: 8}").min, bounds("{max: 8}").max) == (1, 8)
    with pytest.raises(UseError, match="below min"):
        bounds("{min: 3, max: 2}")
    with pytest.raises(UseError, match=r"teachers.small.replicas"):
        bounds("many")


def test_every_recipe_validates_against_the_schema_that_editors_get(folder):
    import jsonschema
    import yaml

    schema = file_schema(recipe_model("fewshot_mcqa"))
    content = yaml.safe_load(RECIPE)
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"profiles": {"local": {"studens": {}}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"profiles": {"local": None}}, schema)
    content["students"]["encoder"]["train"]["epocs"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_a_secret_is_named_and_never_written(folder):
    demo = Path(__file__).parents[2] / "recipes" / "demo.yaml"
    teacher = "teachers.gemma.environment"
    with pytest.raises(UseError, match="HF_TOKEN looks like a secret"):
        load_recipe(demo, recipe_model, settings=[f"{teacher}={{HF_TOKEN: hf_abc}}"])
    loaded = load_recipe(
        demo,
        recipe_model,
        settings=[f"{teacher}={{HF_TOKEN: '${{HF_TOKEN}}', OMP_NUM_THREADS: '2'}}"],
    )
    assert loaded.recipe.teachers["gemma"].environment["HF_TOKEN"] == "${HF_TOKEN}"


def test_files_may_be_on_an_object_store(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    url = (folder / "examples.jsonl").as_uri()
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.replace("examples: examples.jsonl", f"examples: {url}"))
    loaded = load_recipe(file, recipe_model)
    name = loaded.recipe.files()["task.examples"]
    fetched = loaded.path(name)
    assert fetched != folder / "examples.jsonl"
    assert fetched.read_text() == (folder / "examples.jsonl").read_text()
    (folder / "examples.jsonl").write_text('{"question": "Who lost?", "answer": "sports"}\n')
    assert "lost" in loaded.path(name).read_text()
    with pytest.raises(UseError, match="there is no such file"):
        loaded.path(f"{url}.gone")
