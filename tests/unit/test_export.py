"""A student leaves its run whole, with a card that tells the truth, and only where it may."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from core.errors import UseError, WorkError
from core.recipe_students import Student
from core.run import Folder, Run
from stillhouse.card_data import gather_card, objective_in_words
from stillhouse.delivery import write_folder, write_store
from stillhouse.exporting import export_student
from stillhouse.gather import StudentReader
from stillhouse.model_card import form_of, model_card
from tests.finished_run import make_run
from tests.hub_server import Hub, hub
from tests.unit.test_command_line import ENVIRONMENT, ROOT, stillhouse

__all__ = ["hub"]

OFFLINE = {"HF_HUB_OFFLINE": "1"}
LLAMA = "---\nlicense: llama3.1\n---\n"


@pytest.fixture(scope="module")
def student(tiny_encoder, tmp_path_factory) -> Path:
    """A classifier of two labels, in its own folder."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("student")
    labels = {0: "business", 1: "sports"}
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, id2label=labels)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    (folder / "README.md").write_text("# The card that training wrote\n")
    return folder


@pytest.fixture
def run(tmp_path, tiny_encoder, student) -> Run:
    return make_run(tmp_path, tiny_encoder, encoder=student, second=student)


@pytest.fixture
def llama_run(tmp_path, tiny_encoder, student) -> Run:
    """Its teacher's card says that it is a Llama, and the base's that it is free."""
    return make_run(
        tmp_path,
        _with_card(tmp_path / "base", "---\nlicense: apache-2.0\n---\n"),
        str(_with_card(tmp_path / "teacher", LLAMA)),
        encoder=student,
    )


def _with_card(folder: Path, card: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text(card)
    return folder


@pytest.fixture
def use(monkeypatch, capsys) -> Callable[[str, Path], str]:
    """Run a card's example where the student's folder lies, and return what it prints."""

    def run_example(card: str, folder: Path) -> str:
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        monkeypatch.chdir(folder)
        exec(code, {})
        return capsys.readouterr().out.strip()

    return run_example


def test_an_exported_student_loads_as_its_card_says(run, student, tmp_path, use):
    target = tmp_path / "out" / "router"
    done = export_student(run, None, str(target), None)
    assert done.places == [str(target)]
    names = {path.name for path in target.iterdir()}
    assert names == {path.name for path in student.iterdir()} | {"stillhouse-recipe.yaml"}
    for name in names - {"README.md", "stillhouse-recipe.yaml"}:
        assert (target / name).read_bytes() == (student / name).read_bytes()
    assert (target / "stillhouse-recipe.yaml").read_bytes() == run.folder.read("recipe.yaml")
    card = (target / "README.md").read_text()
    assert use(card, tmp_path / "out") in ("['business']", "['sports']")


def test_the_hub_can_read_the_front_matter(run, tmp_path):
    export_student(run, None, str(tmp_path / "router"), None)
    data = ModelCard.load(tmp_path / "router" / "README.md").data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.license == "other"
    assert data.license_name == "undetermined"
    assert data.base_model is None, "a folder of this machine is no model of the hub"
    assert data.tags == ["stillhouse", "distillation"]
    assert data.model_name == "router"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8)


def card_of(run: Run, tmp_path: Path, student: str | None = None) -> str:
    export_student(run, student, str(tmp_path / "out"), None)
    return (tmp_path / "out" / "README.md").read_text()


def test_the_card_tells_what_the_run_found(run, tmp_path):
    card = card_of(run, tmp_path)
    for line in [
        "Over 10 evaluation rows",
        "| Teacher large, raw | 60.0% | 31.3 to 83.2 |",
        "| Teacher large, calibrated | 90.0% | 59.6 to 98.2 |",
        "| Student encoder | 80.0% | 49.0 to 94.3 |",
        "Student less its best teacher: \N{MINUS SIGN}10.0 points",
        "9 rows trained on, 1 held out",
        "example 1, decomposed 9",
        "Seed: 7",
        # 3,000 seconds of the teacher and 1,000 of the training; what was measured is not counted.
        "wrote 10 rows, scored 10 rows | €3.00 | 75.0% |",
        "training, idle time | €4.00 |",
        "requests to the teacher | €1.00 |",
        "requests to the student | €0.200 |",
        "after | 5,000 requests |",
        "(the contract)",
        "| weight_decay | 0.0 |",
        "Epoch 1 of 2, after 20 steps",
        "**Its licence is unknown**",
    ]:
        assert line in card, line
    assert "Student second" not in card
    assert not re.search(r"\n{3}", card)


def test_the_card_of_another_student_is_about_it(run, tmp_path):
    card = card_of(run, tmp_path, "second")
    assert "| Student second | 50.0% |" in card
    assert "Student encoder" not in card
    assert "training, idle time | €3.00 |" in card
    assert "share" in card
    assert "| 100.0% |" in card


def test_what_was_not_measured_is_not_told(tmp_path, tiny_encoder, student):
    missing = ("predict-encoder", "compare-encoder")
    run = make_run(tmp_path, tiny_encoder, without=missing, encoder=student)
    card = card_of(run, tmp_path)
    assert (
        "Nobody has measured it: predict-encoder, compare-encoder of its run is not done." in card
    )
    assert "were not compared over HTTP" in card
    assert "requests to the teacher | unknown |" in card
    assert "after | unknown |" in card
    assert "training, idle time | €4.00 |" in card
    assert ModelCard.load(tmp_path / "out" / "README.md").data.eval_results is None


def test_a_price_that_is_unknown_stays_unknown(run, tmp_path):
    run.folder.write("prices.yaml", b"currency: EUR\n")
    card = card_of(run, tmp_path)
    assert "scored 10 rows | unknown | unknown |" in card
    assert "training, idle time | unknown |" in card


def test_pickled_weights_are_refused(run, tmp_path):
    place = run.finished_stages()["train-encoder"].folder.child("student")
    for name in ("pytorch_model.bin", "training_args.bin", "old.CKPT", "sub/weights.pkl"):
        *below, last = name.split("/")
        place.child(*below).write(last, b"")
        with pytest.raises(UseError, match=f"{name} can hold pickles"):
            export_student(run, None, str(tmp_path / "out"), None)
        place.child(*below).delete(last)
    assert not (tmp_path / "out").exists()
    place.delete("model.safetensors")
    with pytest.raises(UseError, match="no weights in safetensors"):
        export_student(run, None, str(tmp_path / "out"), None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--student", "third"], "no such student"),
        (["--public"], "for --push hf://"),
        (["--push", "hf://router"], "no name of a model"),
        (["--push", "some/folder"], "no place to publish"),
        (["--push", "foo://x"], "Unrecognized filesystem type"),
    ],
)
def test_a_mistake_of_export_is_told_in_three_lines(run, tmp_path, arguments, says):
    done = stillhouse(
        "export", run.folder.location, *arguments, folder=tmp_path, environment=OFFLINE
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_a_student_that_is_not_trained_is_not_exported(tmp_path, tiny_encoder):
    run = make_run(tmp_path, tiny_encoder, without=("train-encoder",))
    with pytest.raises(UseError, match="not trained yet"):
        export_student(run, None, str(tmp_path / "out"), None)


def test_without_a_place_it_goes_beside_and_unknown_licences_are_told(run, tmp_path):
    done = stillhouse("export", run.folder.location, folder=tmp_path, environment=OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "routing-encoder")
    assert (tmp_path / "routing-encoder" / "README.md").is_file()
    assert done.stderr.count("Find out before you publish") == 2


# Places


def write_to(kind: str, tmp_path: Path) -> tuple[Callable, str]:
    target = tmp_path / "store" / "router"
    return (write_folder, str(target)) if kind == "folder" else (write_store, target.as_uri())


@pytest.fixture
def parcel(tmp_path) -> dict:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 1000)
    return {
        "stillhouse-recipe.yaml": b"r",
        "model.safetensors": file,
        "sub/more.json": b"{}",
        "README.md": b"# Card",
    }


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_a_place_gets_all_of_it_and_is_not_written_twice(kind, parcel, tmp_path):
    write, place = write_to(kind, tmp_path)
    assert write(parcel, place) == place
    target = tmp_path / "store" / "router"
    assert (target / "model.safetensors").read_bytes() == b"w" * 1000
    assert (target / "sub" / "more.json").read_bytes() == b"{}"
    before = sorted(path.name for path in (tmp_path / "store").rglob("*"))
    with pytest.raises(UseError, match="something is there already"):
        write(parcel, place)
    assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_what_is_not_ours_is_left_alone(kind, parcel, tmp_path):
    write, place = write_to(kind, tmp_path)
    (tmp_path / "store" / "router").mkdir(parents=True)
    (tmp_path / "store" / "router" / "thesis.txt").write_text("mine")
    with pytest.raises(UseError, match="something is there already"):
        write(parcel, place)
    assert (tmp_path / "store" / "router" / "thesis.txt").read_text() == "mine"


def test_a_folder_appears_whole_or_not_at_all(parcel, tmp_path):
    target = tmp_path / "store" / "router"
    with pytest.raises(WorkError, match="could not be written"):
        write_folder({**parcel, "lost.json": tmp_path / "lost"}, str(target))
    assert list((tmp_path / "store").iterdir()) == []
    write_folder(parcel, str(target))


def test_a_store_has_the_card_last_and_an_unfinished_export_is_done_again(parcel, tmp_path):
    target = tmp_path / "store" / "router"
    lost = {"stillhouse-recipe.yaml": b"r", "old.safetensors": b"o", "lost": tmp_path / "lost"}
    with pytest.raises(WorkError, match="could not be written"):
        write_store({**lost, "README.md": b"# Card"}, target.as_uri())
    assert (target / "old.safetensors").is_file()
    assert not (target / "README.md").exists()
    write_store(parcel, target.as_uri())
    assert not (target / "old.safetensors").exists()
    assert (target / "README.md").read_bytes() == b"# Card"


def test_an_object_store_gets_the_student(run, tmp_path):
    place = (tmp_path / "store" / "router").as_uri()
    done = stillhouse("export", run.folder.location, "--push", place, environment=OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == place
    folder = Folder(place)
    assert folder.names()[0] == "README.md"
    assert folder.has("model.safetensors")


# The hub


def push(run: Run, hub: Hub, name: str, *more: str):
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",  # the way of uploading that a small server can speak
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(Path(run.folder.location).parent / "hf"),
    }
    place = f"hf://{name}"
    done = stillhouse(
        "export", run.folder.location, "--push", place, *more, environment=environment
    )
    assert hub.token not in done.stdout + done.stderr
    return done


def test_a_push_is_one_commit_to_a_private_repository(run, student, hub):
    done = push(run, hub, "desk/router")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/desk/router"
    repository = hub.repositories["desk/router"]
    assert repository.private
    ((_, *lines),) = repository.commits
    order = [line["value"]["path"] for line in lines]
    assert (order[0], order[-1]) == ("stillhouse-recipe.yaml", "README.md")
    weights = (student / "model.safetensors").read_bytes()
    assert repository.files["model.safetensors"] == weights
    assert set(repository.files) == {path.name for path in student.iterdir()} | {
        "stillhouse-recipe.yaml"
    }
    card = ModelCard(repository.files["README.md"].decode())
    assert 'from_pretrained("desk/router")' in card.text
    assert card.data.model_name == "router"


def test_old_weights_leave_the_repository(run, hub):
    assert push(run, hub, "desk/router").returncode == 0
    repository = hub.repositories["desk/router"]
    repository.files |= {"model-00001-of-00002.safetensors": b"", "a.bin": b"", "more.md": b"m"}
    assert push(run, hub, "desk/router").returncode == 0
    assert not {"model-00001-of-00002.safetensors", "a.bin"} & set(repository.files)
    assert repository.files["more.md"] == b"m"


def test_nothing_is_published_to_everybody_by_accident(llama_run, hub):
    assert push(llama_run, hub, "desk/Llama-router", "--public").returncode == 0
    assert not hub.repositories["desk/Llama-router"].private
    again = push(llama_run, hub, "desk/Llama-router")
    assert again.returncode == 2
    assert "for everybody to see" in again.stderr
    assert len(hub.repositories["desk/Llama-router"].commits) == 1
    hub.repositories["desk/Llama-router"].private = True
    assert push(llama_run, hub, "desk/Llama-router", "--public").returncode == 2


def test_a_student_of_a_llama_is_called_so(llama_run, hub):
    refused = push(llama_run, hub, "desk/router")
    assert refused.returncode == 2
    place, cause, mend = refused.stderr.splitlines()
    assert place == "--push hf://desk/router"
    assert "Llama 3.1 Community License Agreement, 1.b.i" in cause
    assert "Call it Llama-router." in mend
    assert "--accept-terms" in mend
    assert not hub.repositories
    assert push(llama_run, hub, "desk/router", "--accept-terms").returncode == 0
    done = push(llama_run, hub, "desk/Llama-router")
    assert done.returncode == 0, done.stderr
    assert "Llama 3.1 Community License Agreement binds the student" in done.stderr
    card = hub.repositories["desk/Llama-router"].files["README.md"].decode()
    assert "**Built with Llama**" in card
    assert ModelCard(card).data.license == "llama3.1"
    assert "1.b.i" in card


def test_an_unknown_licence_is_not_published_to_everybody(run, hub):
    refused = push(run, hub, "desk/router", "--public")
    assert refused.returncode == 2
    assert "is unknown" in refused.stderr
    assert push(run, hub, "desk/router", "--public", "--accept-terms").returncode == 0


def test_a_hub_that_does_not_answer_well_changes_nothing(run, hub):
    hub.broken = "/objects/"
    failed = push(run, hub, "desk/router")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-3] == "hf://desk/router"
    assert not hub.repositories["desk/router"].commits
    hub.broken, hub.token = "", "another"
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "wrong"}
    arguments = ["export", run.folder.location, "--push", "hf://desk/other"]
    refused = stillhouse(*arguments, environment=environment)
    assert refused.returncode == 2
    assert "HF_TOKEN" in refused.stderr
    assert len(refused.stderr.splitlines()) == 3
    offline = stillhouse(*arguments, environment={**environment, "HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE is set" in offline.stderr


def test_the_hub_is_asked_for_a_licence(hub):
    hub.cards["owner/nameless"] = {"license": "gemma"}
    script = (
        "from core.licences import find_source\n"
        "for model in ('owner/nameless', 'owner/absent'):\n"
        "    print(find_source('t', model, 'outputs').licence)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**ENVIRONMENT, "HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["gemma", "None"]


# Other families


@pytest.fixture
def other(request, tiny_teacher, tiny_encoder, tmp_path) -> Path:
    """A tiny untrained student of another kind, with its tokenizer."""
    import transformers as t

    kind, folder = request.param, tmp_path / "other"
    source = tiny_encoder if kind in ("choices", "pairs") else tiny_teacher
    tokenizer = t.AutoTokenizer.from_pretrained(source)
    if kind == "choices":
        model = t.AutoModelForMultipleChoice.from_pretrained(source)
    elif kind == "pairs":
        model = t.AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    elif kind == "causal":
        model = t.AutoModelForCausalLM.from_pretrained(source)
    else:
        tokenizer.chat_template = None
        model = t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=len(tokenizer),
                d_model=16,
                d_kv=8,
                d_ff=16,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("other", "snippet", "pipeline"),
    [
        ("choices", "choices", "multiple-choice"),
        ("pairs", "pairs", "multiple-choice"),
        ("causal", "causal", "text-generation"),
        ("seq2seq", "seq2seq", "text-generation"),
    ],
    indirect=["other"],
)
def test_the_card_follows_the_architecture(other, snippet, pipeline, run, use):
    config = json.loads((other / "config.json").read_text())
    assert form_of(config).snippet == snippet
    card = model_card(gather_card(StudentReader(run)), config, "other", chat=snippet == "causal")
    assert ModelCard(card).data.pipeline_tag == pipeline
    assert ("apply_chat_template" in card) == (snippet == "causal")
    printed = use(card, other.parent)
    if pipeline == "multiple-choice":
        assert printed in ("business", "sports")


@pytest.mark.parametrize(
    ("family", "objective", "words"),
    [
        ("encoder", None, "temperature 1; with the hard label where a row has no others"),
        ("encoder", {"hard_weight": 0.25, "temperature": 2.0}, "0.25 of it with the hard label"),
        ("seq2seq", None, "cross-entropy of the answer's tokens, with weight 1"),
        (
            "causal",
            {"kind": "sequence", "rationale_weights": {"a": 0.5}},
            "and of rationales, with weights a 0.5",
        ),
        ("causal", {"kind": "logits"}, "forward KL with the teacher's likeliest tokens"),
        (
            "causal",
            {"kind": "logits", "divergence": "jsd", "hard_weight": 0.1},
            "(beta 0.5) with the teacher's likeliest tokens; cross-entropy of "
            "the teacher's text weighs 0.1",
        ),
    ],
)
def test_the_loss_is_told_in_words(family, objective, words):
    train = {} if objective is None else {"objective": objective}
    student = Student.model_validate({"family": family, "model": "m", "train": train})
    assert words in objective_in_words(student)


def test_a_kind_of_model_that_nobody_knows_is_refused():
    with pytest.raises(WorkError, match="BertModel"):
        form_of({"architectures": ["BertModel"]})
    many = {"architectures": ["Gemma3ForConditionalGeneration"]}
    assert form_of(many).loader == "AutoModelForCausalLM"
