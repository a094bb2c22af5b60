"""The files of deploy/ in a real Prometheus, which asks a running camera."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edge.live.token import Token
from tests.support.servers import Server, free_port, until

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="needs Debian's prometheus"
)

SECRET = "0123456789abcdef-secret"
FIRING = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'arcedge_source_up{{instance="a:8080", source="door"}}', values: '1 0x20'}}
      - {{series: 'arcedge_source_up{{instance="a:8080", source="yard"}}', values: '1 0 0 1x20'}}
      - {{series: 'up{{job="arcedge", instance="b:8080"}}', values: '0x20'}}
      - {{series: 'up{{job="other", instance="c:9100"}}', values: '0x20'}}
      - {{series: 'arcedge_gallery_readable{{instance="a:8080"}}', values: '1 0x20'}}
      - {{series: 'arcedge_sink_results_total{{instance="a:8080",sink="mqtt",outcome="dropped"}}', values: '0 0 4 4x9'}}
      - {{series: 'arcedge_sink_results_total{{instance="a:8080",sink="mqtt",outcome="delivered"}}', values: '0+9x20'}}
    alert_rule_test:
      - {{eval_time: 4m, alertname: CameraGivesNothing}}
      - eval_time: 6m
        alertname: CameraGivesNothing
        exp_alerts:
          - exp_labels: {{severity: warning, instance: "a:8080", source: door}}
            exp_annotations: {{summary: "a:8080: door has given no picture for 5 minutes"}}
      - eval_time: 5m
        alertname: DeviceSilent
        exp_alerts:
          - exp_labels: {{severity: critical, job: arcedge, instance: "b:8080"}}
            exp_annotations: {{summary: "b:8080 does not answer"}}
      - eval_time: 2m
        alertname: GalleryUnreadable
        exp_alerts:
          - exp_labels: {{severity: critical, instance: "a:8080"}}
            exp_annotations: {{summary: "a:8080 goes on with the people it knew: its gallery cannot be read"}}
      - {{eval_time: 1m, alertname: ResultsLost}}
      - eval_time: 2m
        alertname: ResultsLost
        exp_alerts:
          - exp_labels: {{severity: warning, instance: "a:8080", sink: mqtt, outcome: dropped}}
            exp_annotations: {{summary: "a:8080: mqtt: 4 results dropped in 15 minutes"}}
"""


class Prometheus(Server):
    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1):
                return True
        except OSError:
            return False


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_for_what_it_says_and_for_nothing_else(repository: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(FIRING.format(rules=repository / "deploy" / "arcedge-alerts.yml"))
    promtool("test", "rules", cases)


def test_the_metrics_are_named_as_prometheus_advises(rig: Any) -> None:
    rig.wait(lambda state: state["people"])
    done = subprocess.run(["promtool", "check", "metrics"], input=rig.ask("/metrics").body, capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.slow
def test_prometheus_asks_a_camera_and_answers_every_panel_of_the_dashboard(
    start: Any, repository: Path, tmp_path: Path
) -> None:
    deploy = repository / "deploy"
    with start(Token.of(SECRET, "test")) as rig:
        token = tmp_path / "token"
        token.write_text(SECRET + "\n")
        config = (deploy / "prometheus.yml").read_text()
        for old, new in (
            ("/etc/prometheus/arcedge-token", str(token)),
            ("camera-1.local:8080", f"127.0.0.1:{rig.page.address.port}"),
            ("15s", "1s"),
        ):
            assert config.count(old) == 1
            config = config.replace(old, new)
        (tmp_path / "prometheus.yml").write_text("global: {evaluation_interval: 1s}\n" + config)
        shutil.copy(deploy / "arcedge-alerts.yml", tmp_path)
        promtool("check", "config", tmp_path / "prometheus.yml")
        port = free_port()
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        with Prometheus(port, [*command, f"--web.listen-address=127.0.0.1:{port}"], tmp_path / "log"):

            def ask(path: str, **query: str) -> Any:
                address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
                with urllib.request.urlopen(address, timeout=10) as answer:
                    return json.load(answer)["data"]

            def value(query: str) -> list[dict[str, Any]]:
                return list(ask("query", query=query)["result"])

            until(lambda: bool(value("rate(arcedge_frames_total[10s]) > 0")))
            expected = {f"127.0.0.1:{rig.page.address.port}": "1", "camera-2.local:8080": "0"}

            def up() -> dict[str, str]:
                return {one["metric"]["instance"]: one["value"][1] for one in value('up{job="arcedge"}')}

            until(lambda: up() == expected)  # the one that is not there is given up later than the other answers twice
            dashboard = json.loads((deploy / "grafana-dashboard.json").read_text())
            asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
            assert len(asked) >= 15
            for expression in asked:
                text = re.sub(r"\$(device|source)\b", ".*", expression).replace("$__rate_interval", "10s")
                assert "$" not in text
                # The camera of this test tells nobody, so that nothing is known of sinks.
                assert bool(value(text)) != ("arcedge_sink_" in text), text
            for variable in dashboard["templating"]["list"][1:]:
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
                assert [one["metric"][label] for one in value(metric)]
            rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"] for rule in rules} == {
                *("CameraGivesNothing", "DeviceSilent", "GalleryUnreadable", "ResultsLost")
            }
            until(lambda: all(r["health"] == "ok" for g in ask("rules")["groups"] for r in g["rules"]))
