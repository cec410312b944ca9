"""The container images: locks agree, Dockerfiles are sound, and their steps can be taken."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from cluster.pods import IMAGES
from cluster.ray_cluster import RAY_VERSION

ROOT = Path(__file__).parents[2]
ROLES = sorted(set(IMAGES.values()))
BIN = Path(sys.executable).parent


def dockerfile(role: str) -> str:
    return (ROOT / f"cluster/images/{role}.Dockerfile").read_text()


def lock(role: str) -> dict[str, str]:
    lines = (ROOT / f"requirements/{role}.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def test_there_is_one_for_each_role():
    assert ROLES == ["server", "teacher", "trainer"]
    assert {file.stem for file in (ROOT / "cluster/images").glob("*.Dockerfile")} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_hadolint_finds_nothing(role):
    file = ROOT / f"cluster/images/{role}.Dockerfile"
    done = subprocess.run([BIN / "hadolint", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("role", ROLES)
def test_images_run_as_nobody_in_two_stages_of_a_pinned_base(role):
    text = dockerfile(role)
    assert text.count("\nFROM ") == 2
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim", text, re.MULTILINE)
    assert "\nUSER 10001:10001\n" in text.rpartition("\nFROM ")[2]


def test_locks_are_pinned_and_agree():
    locks = [lock(role) for role in ROLES]
    for found in locks:
        assert found["ray"] == RAY_VERSION
        for name, version in found.items():
            assert all(other.get(name, version) == version for other in locks), name
    assert lock("teacher")["vllm"] == "0.29.0"
    assert "deepspeed" in lock("trainer")
    assert "vllm" not in lock("trainer") | lock("server")
    # What the project itself asks for, the tests run as the images do.
    tested = dict(
        line.split("==") for line in (ROOT / "requirements/cpu.lock").read_text().splitlines()
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {Requirement(text).name for text in project["dependencies"]} - {"torch"}
    for found in locks:
        for name in found.keys() & tested.keys() & direct:
            assert found[name] == tested[name], name


def copied(role: str) -> list[str]:
    """What the build stage copies, beside the role's lock."""
    lines = re.findall(r"^COPY (?!--)(.*)$", dockerfile(role), re.MULTILINE)
    return [line for line in lines if f"{role}.lock" not in line]


def test_what_is_copied_makes_the_whole_package(tmp_path):
    """The steps of the build stage, after the lock's: with the files that it copies alone."""
    assert copied("teacher") == copied("trainer") == copied("server")
    (tmp_path / "source").mkdir()
    for line in copied("teacher"):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, tmp_path / "source" / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, tmp_path / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", tmp_path, tmp_path / "source"]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    for package in ("core", "pipelines", "training", "serving", "cluster", "stillhouse"):
        ours = {
            str(file.relative_to(ROOT))
            for file in (ROOT / package).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".Dockerfile"
        }
        assert ours <= packed, ours - packed


def build(role: str, folder: Path) -> Path:
    """Take the steps of an image's build stage, in a folder that stands for its root.

    Returns:
        Of the environment that it makes: the folder with its commands.
    """
    stage = dockerfile(role).partition(" AS build\n")[2].partition("\nFROM ")[0]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    here = folder

    def at(path: str) -> Path:
        return folder / path[1:] if path.startswith("/") else here / path

    for line in re.findall(r"^(?:RUN|COPY|WORKDIR|ENV PATH=).*$", stage, re.MULTILINE):
        step, _, rest = line.partition(" ")
        if step == "WORKDIR":
            here = at(rest)
            here.mkdir(parents=True, exist_ok=True)
        elif step == "COPY":
            *sources, target = rest.split()
            at(target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, at(target), dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, at(target))
        elif step == "ENV":
            own = at(rest.removeprefix("PATH=").removesuffix(":$PATH"))
            environment["PATH"] = f"{own}:{os.environ['PATH']}"
        else:
            command = re.sub(r"(?<= )/(opt|build)/", f"{folder}/\\1/", rest)
            subprocess.run(command, shell=True, cwd=here, env=environment, check=True)
    return folder / "opt/stillhouse/bin"


OF_VLLM = {"serving.openai_ingress", "serving.student_server"}
"""What serves students that write: they run in the teacher's image."""

IMPORT_ALL = """
import importlib, pkgutil
for room in ("core", "serving"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        try:
            importlib.import_module(module.name)
        except ImportError:
            print(module.name)
"""


@pytest.mark.slow
def test_the_servers_image_can_be_built_and_has_all_that_serving_imports(tmp_path):
    binaries = build("server", tmp_path)

    def said(*command: str) -> str:
        environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    assert set(said(f"{binaries}/python", "-c", IMPORT_ALL).split()) == OF_VLLM
    assert "serve" in said(f"{binaries}/stillhouse", "--help")


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_locks_can_be_installed(role, tmp_path):
    """Each package is there in its version, for this platform; nothing of them is unpacked."""
    venv.create(tmp_path, with_pip=True)
    command = [tmp_path / "bin/python", "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--quiet", "-r", ROOT / f"requirements/{role}.lock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


ROOMS = {
    "teacher": ("core", "pipelines"),
    "trainer": ("core", "pipelines", "training", "cluster", "stillhouse"),
    "server": ("core", "serving"),
}
"""What the pods of each image run."""

DRIVERS = {"gguf", "kubernetes", "nltk", "py3langid", "rensa", "spacy"}

ELSEWHERE = {
    "teacher": DRIVERS,  # which runs in another image
    "trainer": {"vllm", "lm_eval", "mlflow", "tensorboardX", "wandb"},  # a teacher's, and extras
    "server": {"gguf", "vllm", "deepspeed"},  # students on vLLM are served in the teacher's image
}


def imported(folder: Path) -> set[str]:
    """Names of the packages that a folder's modules import, anywhere in them."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(ROOMS["trainer"]) - {"serving"}


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_holds_what_the_code_imports(role):
    distributions = packages_distributions()
    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in lock(role)}
    wanted = {name for room in ROOMS[role] for name in imported(ROOT / room)} - ELSEWHERE[role]
    missing = {
        name
        for name in wanted
        if not any(
            re.sub(r"[-_.]+", "-", one).lower() in locked
            for one in (name, *distributions.get(name, []))
        )
    }
    assert not missing, "make the locks anew: requirements/relock_images.py"
