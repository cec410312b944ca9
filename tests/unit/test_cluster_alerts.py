"""Prometheus itself reads our rules and panels; each alarm is raised by what it is for alone."""

import shutil
import subprocess

import pytest
import yaml

from cluster.dashboard import ALERTS, PANELS

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)

MINUTES = 120

STAGE = 'run="r", stage="ask", teacher="t"'
KEPT = f'ray_stillhouse_rows_total{{{STAGE}, outcome="kept"}}'
REJECTED = f'ray_stillhouse_rows_total{{{STAGE}, outcome="rejected"}}'
ENGINES = f"ray_stillhouse_engines{{{STAGE}}}"
RESTARTS = f"ray_stillhouse_engine_restarts{{{STAGE}}}"
USEFUL = f'ray_stillhouse_device_seconds{{{STAGE}, use="useful"}}'
IDLE = f'ray_stillhouse_device_seconds{{{STAGE}, use="idle"}}'
PENDING = 'autoscaler_pending_nodes{NodeType="teacher-t"}'
ANSWERED, SHED, FAILED = (
    f'ray_stillhouse_requests_total{{model="s", status="{status}"}}' for status in (200, 429, 500)
)
SECOND, TEN, ALL = (
    f'ray_stillhouse_request_latency_ms_bucket{{model="s", le="{le}"}}'
    for le in ("1000", "10000", "+Inf")
)

WELL = {
    KEPT: f"0+600x{MINUTES}",
    REJECTED: f"0+6x{MINUTES}",
    ENGINES: f"2x{MINUTES}",
    RESTARTS: f"0x{MINUTES}",
    USEFUL: f"0+100x{MINUTES}",
    IDLE: f"0+20x{MINUTES}",
    PENDING: f"0x{MINUTES}",
    ANSWERED: f"0+600x{MINUTES}",
    SHED: f"0+1x{MINUTES}",
    FAILED: f"0+1x{MINUTES}",
    SECOND: f"0+600x{MINUTES}",
    TEN: f"0+600x{MINUTES}",
    ALL: f"0+600x{MINUTES}",
}
"""A run with engines and a served student, of which nobody need hear; values by the minute."""

NONE = f"_x{MINUTES}"

WRONG = [
    ({}, None),
    ({REJECTED: f"0+200x{MINUTES}"}, "StillhouseManyRowsRejected"),
    ({KEPT: f"0+600x30 18000x{MINUTES - 30}", REJECTED: f"0x{MINUTES}"}, "StillhouseNoRows"),
    # A run that has not brought a single row has no rate of them at all.
    ({KEPT: NONE, REJECTED: NONE}, "StillhouseNoRows"),
    ({KEPT: NONE, REJECTED: NONE, ENGINES: f"0x{MINUTES}"}, None),
    ({RESTARTS: f"0+1x{MINUTES}"}, "StillhouseEnginesDie"),
    ({IDLE: f"0+200x{MINUTES}"}, "StillhouseDevicesIdle"),
    ({PENDING: f"1x{MINUTES}"}, "StillhouseNodesDoNotCome"),
    ({SHED: f"0+60x{MINUTES}"}, "StillhouseRequestsShed"),
    ({FAILED: f"0+60x{MINUTES}"}, "StillhouseStudentFails"),
    ({SECOND: f"0+300x{MINUTES}"}, "StillhouseStudentSlow"),
]


def promtool(*arguments, folder):
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules_file(folder):
    rules = [alert.manifest() for alert in ALERTS]
    groups = [{"name": "stillhouse", "rules": rules}]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))


def test_each_alarm_is_raised_by_what_it_is_for_and_by_nothing_else(tmp_path):
    rules_file(tmp_path)
    assert {alert.alert for alert in ALERTS} == {alarm for _, alarm in WRONG if alarm}
    tests = [
        {
            "name": f"{alarm}: {change}",
            "interval": "1m",
            "input_series": [
                {"series": name, "values": values} for name, values in (WELL | change).items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{MINUTES}m",
                    "exp_samples": [{"labels": f'{{alertname="{alarm}"}}', "value": 1}]
                    if alarm
                    else [],
                }
            ],
        }
        for change, alarm in WRONG
    ]
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(content))
    promtool("test", "rules", "tests.yaml", folder=tmp_path)


def test_panels_are_promql(tmp_path):
    lines = [line for panel in PANELS for line in panel.lines.values()]
    rules = [
        {"record": f"line:{n}", "expr": line.replace("$run", ".*")} for n, line in enumerate(lines)
    ]
    groups = [{"name": "panels", "rules": rules}]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", "panels.yaml", folder=tmp_path)
