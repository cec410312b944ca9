"""Our Grafana dashboard, and the rules by which Prometheus raises alarms.

Every name in them is that of a metric in the code: ours in `pipelines/stage_watch.py` and
`serving/gate.py`, the rest Ray's own. Prometheus sees a counter with `_total` behind its name, a
histogram with `_bucket`, and all of them with `ray_` before it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster.objects import AlertRule

UID = "stillhouse"

WIDTH, HEIGHT = 8, 7
"""Of a panel, on Grafana's grid of 24 columns."""

ROWS = "ray_stillhouse_rows_total"
TOKENS = "ray_stillhouse_tokens"
LATENCY = "ray_stillhouse_request_latency_ms_bucket"
REQUESTS = "ray_stillhouse_requests_total"


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    """Grafana's name of it."""
    lines: dict[str, str]
    """Expressions of PromQL by what the line is called."""
    about: str = ""


RUN = '{run=~"$run"}'


REJECTED = '{run=~"$run", outcome="rejected"}'
CACHED = '{run=~"$run", direction="cached"}'
READ = '{run=~"$run", direction="in"}'


PANELS = [
    Panel(
        "Rows committed",
        "rowsps",
        {"{{stage}} {{outcome}}": f"sum by (stage, outcome) (rate({ROWS}{RUN}[5m]))"},
    ),
    Panel(
        "Rejected share",
        "percentunit",
        {
            "{{stage}}": f"sum by (stage) (rate({ROWS}{REJECTED}[15m])) "
            f"/ sum by (stage) (rate({ROWS}{RUN}[15m]))"
        },
        "Rows that a stage could not use. Their reasons: stillhouse rows RUN --stage S --rejected.",
    ),
    Panel(
        "Tokens",
        "tps",
        {"{{teacher}} {{direction}}": f"sum by (teacher, direction) (rate({TOKENS}{RUN}[5m]))"},
        "Through teachers: in, of these answered by the prefix cache, and out.",
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        {
            "{{teacher}}": f"sum by (teacher) (rate({TOKENS}{CACHED}[5m])) "
            f"/ sum by (teacher) (rate({TOKENS}{READ}[5m]))"
        },
        "Share of prompt tokens that no engine had to read again.",
    ),
    Panel(
        "Cost of this attempt",
        "currencyUSD",
        {"{{stage}}": f"sum by (stage) (ray_stillhouse_cost{RUN})"},
        "By the run's price book, in its currency; unknown prices are left out.",
    ),
    Panel(
        "Cost of a thousand rows",
        "currencyUSD",
        {
            "{{stage}} {{teacher}}": "max by (stage, teacher) "
            f"(ray_stillhouse_cost_per_thousand_rows{RUN})"
        },
    ),
    Panel(
        "Engines",
        "short",
        {"{{teacher}}": f"sum by (teacher) (ray_stillhouse_engines{RUN})"},
    ),
    Panel(
        "Engine restarts",
        "short",
        {"{{teacher}}": f"sum by (teacher) (ray_stillhouse_engine_restarts{RUN})"},
        "Deaths of engines' processes: of prompts that kill them, and of lost machines.",
    ),
    Panel(
        "Devices held",
        "percentunit",
        {"{{use}}": f"sum by (use) (rate(ray_stillhouse_device_seconds{RUN}[5m]))"},
        "Devices that are paid for, by what they do: starting, useful, idle.",
    ),
    Panel(
        "Nodes",
        "short",
        {
            "{{NodeType}}": "sum by (NodeType) (autoscaler_active_nodes)",
            "{{NodeType}} pending": "sum by (NodeType) (autoscaler_pending_nodes)",
        },
    ),
    Panel(
        "GPUs at work",
        "percent",
        {"{{instance}} {{GpuIndex}}": "ray_node_gpus_utilization"},
    ),
    Panel(
        "Memory of pods",
        "bytes",
        {"{{instance}}": "ray_node_mem_used"},
    ),
    Panel(
        "Requests of the student",
        "reqps",
        {"{{model}} {{status}}": f"sum by (model, status) (rate({REQUESTS}[5m]))"},
    ),
    Panel(
        "Latency of the student",
        "ms",
        {
            f"{{{{model}}}} p{percent}": f"histogram_quantile({percent / 100:g}, "
            f"sum by (model, le) (rate({LATENCY}[5m])))"
            for percent in (50, 95, 99)
        },
        "From a request's arrival at a replica to its answer.",
    ),
    Panel(
        "Requests shed",
        "reqps",
        {
            "{{model}}": f'sum by (model) (rate({REQUESTS}{{status="429"}}[5m]))',
            "waiting": "sum(ray_serve_deployment_queued_queries)",
        },
        "Answered with 429, as too many wait or a caller asks too often.",
    ),
]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.about,
            "datasource": "${datasource}",
            "gridPos": {
                "x": WIDTH * (number % 3),
                "y": HEIGHT * (number // 3),
                "w": WIDTH,
                "h": HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend}
                for n, (legend, expression) in enumerate(panel.lines.items())
            ],
        }
        for number, panel in enumerate(PANELS)
    ]
    return {
        "uid": UID,
        "title": "Stillhouse",
        "tags": ["stillhouse", "ray"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "run",
                    "type": "query",
                    "datasource": "${datasource}",
                    "query": f"label_values({ROWS}, run)",
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


def dashboard_json() -> str:
    """The same as a file's text."""
    return json.dumps(dashboard(), indent=1)


def _alert(  # noqa: PLR0917
    name: str, expression: str, lasting: str, severity: str, summary: str, mend: str
) -> AlertRule:
    return AlertRule(
        alert=name,
        expr=expression,
        lasting=lasting,
        labels={"severity": severity},
        annotations={"summary": summary, "description": mend},
    )


ALERTS = [
    _alert(
        "StillhouseManyRowsRejected",
        f'sum by (run, stage) (rate({ROWS}{{outcome="rejected"}}[15m])) '
        f"> 0.2 * sum by (run, stage) (rate({ROWS}[15m]))",
        "10m",
        "warning",
        "More than a fifth of the rows of {{ $labels.run }}/{{ $labels.stage }} are rejected.",
        "`stillhouse rows RUN --stage STAGE --rejected` shows them with their reasons.",
    ),
    _alert(
        "StillhouseNoRows",
        # `unless`: before its first row a run has no rate that could be zero.
        f"sum by (run) (ray_stillhouse_engines) > 0 unless sum by (run) (rate({ROWS}[30m])) > 0",
        "30m",
        "critical",
        "Engines of {{ $labels.run }} are paid for, and no row has come in an hour.",
        "See `stillhouse cluster logs`, and the engines' own logs in the run.",
    ),
    _alert(
        "StillhouseEnginesDie",
        "sum by (run, teacher) (delta(ray_stillhouse_engine_restarts[30m])) > 5",
        "0m",
        "warning",
        "Engines of {{ $labels.run }}/{{ $labels.teacher }} died more than five times.",
        "A prompt that kills engines is set aside by itself; machines that go are not.",
    ),
    _alert(
        "StillhouseDevicesIdle",
        'sum by (run) (rate(ray_stillhouse_device_seconds{use="idle"}[15m])) '
        "> 0.5 * sum by (run) (rate(ray_stillhouse_device_seconds[15m]))",
        "15m",
        "warning",
        "More than half of what {{ $labels.run }} pays for is idle.",
        "Lower the teacher's replicas, or raise max_num_seqs.",
    ),
    _alert(
        "StillhouseNodesDoNotCome",
        "sum by (NodeType) (autoscaler_pending_nodes) > 0",
        "30m",
        "warning",
        "Pods of group {{ $labels.NodeType }} have waited for a machine for half an hour.",
        "`kubectl describe pod` tells what they wait for.",
    ),
    _alert(
        "StillhouseRequestsShed",
        f'sum by (model) (rate({REQUESTS}{{status="429"}}[5m])) '
        f"> 0.01 * sum by (model) (rate({REQUESTS}[5m]))",
        "5m",
        "warning",
        "More than one in a hundred requests to {{ $labels.model }} is refused.",
        "Raise serve.replicas.max, or serve.max_queued.",
    ),
    _alert(
        "StillhouseStudentFails",
        f'sum by (model) (rate({REQUESTS}{{status=~"5.."}}[5m])) '
        f"> 0.01 * sum by (model) (rate({REQUESTS}[5m]))",
        "5m",
        "critical",
        "More than one in a hundred requests to {{ $labels.model }} fails.",
        "See the logs of the pods whose component is serve.",
    ),
    _alert(
        "StillhouseStudentSlow",
        f"histogram_quantile(0.99, sum by (model, le) (rate({LATENCY}[5m]))) > 2000",
        "10m",
        "warning",
        "One in a hundred requests to {{ $labels.model }} takes more than two seconds.",
        "Lower serve.replicas.target_requests, or serve.max_batch_size.",
    ),
]
"""What somebody should look at."""
