"""For Prometheus and Grafana: what they scrape, what they raise alarms for, and what they show."""

from __future__ import annotations

from cluster.dashboard import ALERTS, dashboard_json
from cluster.naming import PART_OF
from cluster.objects import (
    ConfigMap,
    LabelSelector,
    Metadata,
    MetricsEndpoint,
    NamespaceChoice,
    Object,
    PodMonitor,
    PodMonitorSpec,
    PrometheusRule,
    RuleGroup,
    RuleSpec,
)
from cluster.pods import METRICS_PORTS
from core.recipe_cluster import Cluster, Monitoring

RAY_DASHBOARDS = ("default", "data", "train", "serve", "serve_deployment")
"""Those of Ray's that show something of what we run."""


def watching(cluster: Cluster, settings: Monitoring) -> list[Object]:
    """What Prometheus scrapes of all our pods, its rules, and our dashboard.

    Args:
        cluster: The recipe's section.
        settings: Its part on monitoring.
    """
    labels = {**PART_OF, **settings.labels}
    metadata = Metadata(name="stillhouse", namespace=cluster.namespace, labels=labels)
    return [
        PodMonitor(
            metadata=metadata,
            spec=PodMonitorSpec(
                selector=LabelSelector(match_labels=PART_OF),
                namespace_selector=NamespaceChoice(match_names=[cluster.namespace]),
                pod_metrics_endpoints=[MetricsEndpoint(port=name) for name in METRICS_PORTS],
            ),
        ),
        PrometheusRule(
            metadata=metadata,
            spec=RuleSpec(groups=[RuleGroup(name="stillhouse", rules=ALERTS)]),
        ),
        _dashboard(cluster, settings, "stillhouse", dashboard_json()),
    ]


def ray_dashboards(cluster: Cluster, settings: Monitoring) -> list[Object]:
    """Ray's own dashboards, as the Ray that is installed here makes them.

    Args:
        cluster: The recipe's section.
        settings: Its part on monitoring.
    """
    from ray.dashboard.modules.metrics import grafana_dashboard_factory

    found: list[Object] = []
    for name in RAY_DASHBOARDS:
        text, _ = getattr(grafana_dashboard_factory, f"generate_{name}_grafana_dashboard")()
        found.append(_dashboard(cluster, settings, f"ray-{name.replace('_', '-')}", text))
    return found


def _dashboard(cluster: Cluster, settings: Monitoring, name: str, text: str) -> ConfigMap:
    return ConfigMap(
        metadata=Metadata(
            name=f"{name}-dashboard",
            namespace=cluster.namespace,
            labels={**PART_OF, **settings.dashboard_labels},
        ),
        data={f"{name}.json": text},
    )
