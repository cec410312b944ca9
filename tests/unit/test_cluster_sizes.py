"""How many pods of which size a recipe needs, by its own sizes."""

import pytest

from cluster.sizes import Group, PodSize, groups_of_job, groups_of_service
from core.errors import UseError
from tests.cluster_recipes import IMAGES, loaded, students, teacher_data

LARGE = {
    "model": "m/405b",
    "engine": {"tensor_parallel_size": 8},
    "device": {"kind": "h100", "gpus": 8.0, "cpus": 16.0},
}


def sizes(recipe) -> dict[str, Group]:
    return {group.name: group for group in groups_of_job(recipe) if group.use != "cpu"}


def test_an_engine_of_one_machine_is_a_pod(tmp_path):
    found = sizes(teacher_data(tmp_path, {"big": {**LARGE, "replicas": {"min": 1, "max": 4}}}))
    group = found["teacher-big"]
    assert (group.hosts, group.max_replicas, group.max_pods) == (1, 4, 4)
    # Half of the memory of eight GPUs of 81559 MiB.
    assert group.size == PodSize(cpus=16, gpus=8, memory_gib=319)


def test_an_engine_over_two_machines_is_two_pods(tmp_path):
    engine = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}
    device = {"kind": "a100-80gb", "gpus": 16.0, "cpus": 32.0}
    teacher = {**LARGE, "engine": engine, "device": device, "nodes": 2, "replicas": 3}
    group = sizes(teacher_data(tmp_path, {"big": teacher}))["teacher-big"]
    assert (group.hosts, group.max_replicas, group.max_pods) == (2, 3, 6)
    assert group.size == PodSize(cpus=16, gpus=8, memory_gib=320)


def test_an_engine_too_large_for_a_machine_is_refused(tmp_path):
    engine = {"tensor_parallel_size": 16}
    device = {"kind": "h100", "gpus": 16.0, "cpus": 16.0}
    recipe = teacher_data(tmp_path, {"big": {**LARGE, "engine": engine, "device": device}})
    with pytest.raises(UseError, match="wants 16 GPUs in one machine"):
        groups_of_job(recipe)


def test_what_a_machine_has_can_be_said(tmp_path):
    machine = {"gpus": 4, "memory_gib_per_gpu": 100.0}
    cluster = {"images": IMAGES, "machines": {"mi300": machine}}
    device = {"kind": "mi300", "gpus": 4.0, "cpus": 8.0}
    teacher = {"model": "m/m", "engine": {"tensor_parallel_size": 4}, "device": device}
    group = sizes(teacher_data(tmp_path, {"t": teacher}, cluster=cluster))["teacher-t"]
    assert group.size == PodSize(8, 4, 400)
    smaller = {**cluster, "machines": {"mi300": {"gpus": 2}}}
    with pytest.raises(UseError, match="mi300"):
        groups_of_job(teacher_data(tmp_path, {"t": teacher}, cluster=smaller))


def test_teachers_of_one_size_share_a_group_and_others_do_not(tmp_path):
    small = {"model": "m/8b", "device": {"kind": "l4", "gpus": 1.0, "cpus": 2.0}}
    found = sizes(
        teacher_data(
            tmp_path,
            {
                "one": {**small, "replicas": 2},
                "two": {**small, "replicas": {"min": 1, "max": 3}},
                "big": LARGE,
                "far": {"backend": "openai", "model": "m", "base_url": "https://h/v1"},
            },
        )
    )
    assert {name: group.max_replicas for name, group in found.items()} == {
        "teacher-one": 5,
        "teacher-big": 1,
    }


def test_parts_of_a_gpu_share_a_pod(tmp_path):
    teacher = {"model": "m/1b", "device": {"kind": "l4", "gpus": 0.25, "cpus": 1.0}, "replicas": 6}
    group = sizes(teacher_data(tmp_path, {"t": teacher}))["teacher-t"]
    assert (group.size.gpus, group.size.cpus, group.max_replicas) == (1, 4, 2)


@pytest.mark.parametrize(
    ("workers", "pods", "gpus"), [(16, 2, 8), (8, 1, 8), (12, 2, 6), (1, 1, 1), (9, 2, 5)]
)
def test_training_workers_share_machines(tmp_path, workers, pods, gpus):
    train = {"workers": workers, "device": {"kind": "h100", "gpus": 1.0, "cpus": 8.0}}
    student = {"family": "causal", "model": "m/70b", "train": train}
    group = sizes(students(tmp_path, {"s": student}))["train-s"]
    assert (group.max_pods, group.size.gpus, group.size.cpus) == (pods, gpus, 8 * gpus)


def test_an_offloaded_optimizer_has_room(tmp_path):
    train = {
        "workers": 16,
        "device": {"kind": "h100", "gpus": 1.0, "cpus": 8.0},
        "zero_stage": 3,
        "offload": {"optimizer": True},
    }
    student = {"family": "causal", "model": "m/70b", "train": train}
    pods = sizes(students(tmp_path, {"s": student}))["train-s"]
    # 20 bytes for each of 70 billion parameters (training.memory).
    assert pods.max_pods * pods.size.memory_gib * 2**30 > 20 * 70e9


def test_students_are_trained_one_after_the_other_and_trials_side_by_side(tmp_path):
    train = {"workers": 2, "device": {"kind": "l4", "gpus": 1.0, "cpus": 4.0}}
    student = {"family": "causal", "model": "m/1b", "train": train}
    recipe = students(tmp_path, {"one": student, "two": student})
    assert sizes(recipe)["train-one"].max_pods == 2
    trials = {group.name: group for group in groups_of_job(recipe, trials=3)}
    assert trials["train-one"].max_pods == 6


def test_spot_machines_come_first_for_the_roles_that_may_lose_them(tmp_path):
    spot = {"roles": ["teacher"], "node_selector": {"spot": "true"}}
    recipe = teacher_data(tmp_path, {"big": LARGE}, cluster={"images": IMAGES, "spot": spot})
    found = sizes(recipe)
    assert [name for name, group in found.items() if group.spot] == ["teacher-big-spot"]
    assert found["teacher-big-spot"].size == found["teacher-big"].size


def test_names_of_groups_are_labels_and_differ(tmp_path):
    names = ["a.very.long.name.of.a.teacher.with.one", "a.very.long.name.of.a.teacher.with.two"]
    small = {"model": "m/8b", "device": {"kind": "l4", "gpus": 1.0, "cpus": 2.0}}
    teachers = {names[0]: small, names[1]: LARGE}
    found = sizes(teacher_data(tmp_path, teachers))
    assert len(found) == 2
    assert all(name.replace("-", "").isalnum() and len(name) <= 33 for name in found)


def test_a_served_student_has_pods_of_its_own(tmp_path):
    for name in ("examples", "evaluation"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "Who?", "answer": "a"}\n')
    recipe = loaded(
        {
            "name": "serve",
            "method": "fewshot_mcqa",
            "task": {
                "instruction": "Choose.",
                "choices": ["a", "b"],
                "examples": "examples.jsonl",
                "evaluation": "evaluation.jsonl",
            },
            "teachers": {"t": {"model": "m/8b", "device": {"kind": "l4", "gpus": 1.0}}},
            "generate": {"teacher": "t", "decomposed": {"rows": 4}},
            "score": {"teacher": "t"},
            "students": {"s": {"model": "m/22m"}},
            "serve": {"replicas": 3, "device": {"cpus": 2.0}},
            "cluster": {"images": IMAGES},
        },
        tmp_path,
    )
    (group,) = groups_of_service(recipe.student_recipe, recipe.recipe.cluster)
    # One more than there are replicas: an update needs it.
    assert (group.name, group.max_pods, group.size) == ("serve", 4, PodSize(2, 0, 8))
    served_in_job = sizes(recipe)["serve"]
    assert (served_in_job.max_pods, served_in_job.size) == (3, group.size)


def test_a_recipe_without_a_cluster_is_refused(tmp_path):
    recipe = teacher_data(tmp_path, {"big": LARGE}, cluster=None)
    with pytest.raises(UseError, match="which cluster"):
        groups_of_job(recipe)
