"""Every metric that dashboards and alarms name is one that the code makes."""

import json
import re
from pathlib import Path

import pytest
import ray
import yaml
from ray.dashboard.modules.metrics import grafana_dashboard_factory

from cluster.dashboard import ALERTS, PANELS, dashboard
from cluster.watching import RAY_DASHBOARDS, ray_dashboards, watching
from core.recipe_cluster import Cluster, Monitoring
from tests.cluster_recipes import IMAGES

ROOT = Path(__file__).parents[2]

SUFFIXES = ("_total", "_bucket", "_count", "_sum", "")
"""What Prometheus sees behind the name of a counter or a histogram."""

OURS = ("pipelines", "training", "serving")


def sources(root: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in root.rglob("*.py"))


@pytest.fixture(scope="module")
def our_code() -> str:
    return "\n".join(sources(ROOT / room) for room in OURS)


@pytest.fixture(scope="module")
def ray_code() -> str:
    """Python of Ray alone; what its C++ part makes is in the binary."""
    package = Path(ray.__file__).parent
    parts = ("serve", "dashboard/modules/reporter", "autoscaler", "data", "train", "_private")
    code = "\n".join(sources(package / part) for part in parts)
    return re.sub(r"dashboard_panels.*", "", code)


def names(expression: str) -> set[str]:
    """The metrics that an expression of PromQL reads."""
    bare = re.sub(r"\{[^}]*\}|\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:ray|autoscaler)_[a-z_0-9]+", bare))


def defined(name: str, code: str) -> bool:
    """Whether code makes a metric that Prometheus sees by a name."""
    bases = [
        base
        for suffix in SUFFIXES
        if name.endswith(suffix)
        for base in (name.removesuffix(suffix), name.removesuffix(suffix).removeprefix("ray_"))
    ]
    bases += [base.removeprefix("autoscaler_") for base in bases]
    return any(re.search(rf"[\"']{base}[\"']", code) for base in bases if base)


EXPRESSIONS = [line for panel in PANELS for line in panel.lines.values()] + [
    alert.expr for alert in ALERTS
]


@pytest.mark.parametrize("name", sorted({name for line in EXPRESSIONS for name in names(line)}))
def test_every_metric_is_made_somewhere(name, our_code, ray_code):
    assert defined(name, our_code if "stillhouse" in name else ray_code)


def test_what_nobody_makes_is_found(our_code, ray_code):
    assert not defined("ray_stillhouse_row_total", our_code)
    assert not defined("ray_serve_deployment_queued_query", ray_code)


def test_every_metric_of_ours_is_shown(our_code):
    made = set(re.findall(r"\"(stillhouse_[a-z_]+)\"", our_code))
    assert {"stillhouse_rows", "stillhouse_requests"} <= made
    shown = {name for line in EXPRESSIONS for name in names(line)}
    hidden = {name for name in made if not any(f"ray_{name}" in one for one in shown)}
    # Shares of a canary and a shadow, and inputs by who answered, are looked up where they matter.
    assert hidden <= {"stillhouse_inputs", "stillhouse_shadow"}, hidden


def test_expressions_are_closed():
    for line in EXPRESSIONS:
        for opens, closes in ("()", "{}", "[]"):
            assert line.count(opens) == line.count(closes), line


def test_the_dashboard_is_one_that_grafana_reads():
    found = json.loads(json.dumps(dashboard()))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in found["panels"]]
    assert len(set(places)) == len(places)
    wanted = ("Rows", "Tokens", "cache", "Cost of a thousand", "Rejected", "restarts", "Latency")
    titles = " ".join(panel["title"] for panel in found["panels"])
    assert all(word in titles for word in (*wanted, "shed"))
    assert {one["name"] for one in found["templating"]["list"]} == {"datasource", "run"}


def test_what_is_made_for_prometheus_and_grafana():
    cluster = Cluster.model_validate({"images": IMAGES})
    settings = Monitoring(labels={"release": "prometheus"})
    monitor, rules, shown = (one.manifest() for one in watching(cluster, settings))
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    ports = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    assert ports == {"metrics", "as-metrics", "dash-metrics"}
    assert len(rules["spec"]["groups"][0]["rules"]) == len(ALERTS)
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shown["data"]["stillhouse.json"])["title"] == "Stillhouse"


def test_rays_own_dashboards_fit_into_their_objects():
    cluster = Cluster.model_validate({"images": IMAGES})
    found = ray_dashboards(cluster, Monitoring())
    assert len(found) == len(RAY_DASHBOARDS)
    for name, one in zip(RAY_DASHBOARDS, found, strict=True):
        (text,) = one.manifest()["data"].values()
        made, _ = getattr(grafana_dashboard_factory, f"generate_{name}_grafana_dashboard")()
        assert json.loads(text) == json.loads(made)
        assert len(yaml.safe_dump(one.manifest()).encode()) < 2**20


def rays_words() -> set[str]:
    """All words in Ray's code, Python and C++, but for the dashboards themselves."""
    package = Path(ray.__file__).parent
    found: set[str] = set()
    for file in package.rglob("*.py"):
        if "dashboard_panels" not in file.name:
            found |= set(re.findall(r"\w{4,}", file.read_text(errors="replace")))
    for name in ("_raylet.so", "core/src/ray/gcs/gcs_server", "core/src/ray/raylet/raylet"):
        words = re.findall(rb"[a-z][a-z0-9_]{5,60}", (package / name).read_bytes())
        found |= {word.decode() for word in words}
    return found


def rays_expressions() -> set[str]:
    """All expressions of Ray's own dashboards that we ship."""

    def walk(part) -> set[str]:
        if isinstance(part, dict):
            own = {part["expr"]} if isinstance(part.get("expr"), str) else set()
            return own.union(*map(walk, part.values()))
        return set().union(*map(walk, part)) if isinstance(part, list) else set()

    found = set()
    for name in RAY_DASHBOARDS:
        text, _ = getattr(grafana_dashboard_factory, f"generate_{name}_grafana_dashboard")()
        found |= walk(json.loads(text))
    return found


@pytest.mark.slow
def test_every_metric_of_rays_dashboards_is_made_somewhere():
    words = rays_words()
    shown = {name for line in rays_expressions() for name in names(line)}
    assert len(shown) > 100

    def is_made(name: str) -> bool:
        bare = name.removeprefix("ray_").removeprefix("autoscaler_")
        bases = [bare.removesuffix(suffix) for suffix in SUFFIXES if bare.endswith(suffix)]
        # Ray Data puts words before and behind the name of a field.
        bases += [re.sub(r"_(max|min|mean|per_node|s)$", "", base) for base in bases]
        bases += [base.removeprefix("data_") for base in bases]
        # Serve makes some of a pattern: f"serve_num_{protocol}_requests".
        patterns = [re.split("http|grpc", base) for base in bases]
        return any(base in words for base in bases) or any(
            len(parts) == 2 and words.issuperset(parts) for parts in patterns
        )

    # One panel of Ray's own stays empty: it asks for a name that Ray 2.60 does not make.
    empty = {"ray_data_task_completion_time_excl_backpressure_s"}
    assert {name for name in shown if not is_made(name)} == empty
