"""Traces of requests, sent by OTLP to a collector."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import ray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from core.recipe_section import Device
from core.recipe_serving import Serve, Tracing
from serving.application import deploy
from serving.encoder import encoder_student
from tests.students import make_classifier

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(BaseHTTPRequestHandler):
    """Keeps the spans that it is sent."""

    spans = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                Collector.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def cluster():
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as environment:
        # OpenTelemetry's own variables, in the environment that Ray starts in.
        address = f"http://127.0.0.1:{server.server_port}"
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()
    server.shutdown()


def test_a_request_is_traced_from_its_caller_on(cluster, tiny_encoder, tmp_path):
    student = encoder_student(str(make_classifier(tiny_encoder, tmp_path / "student")))
    settings = Serve(port=0, device=Device(cpus=0.1), tracing=Tracing(sample=1.0))
    running = deploy({"minilm": student}, settings, name="traced")
    try:
        answer = httpx.post(
            f"{running.url}/v1/classify",
            json={"model": "minilm", "input": "Senate passes budget bill"},
            headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
            timeout=60,
        )
        assert answer.status_code == 200
        end = time.monotonic() + 20
        while not (own := [span for span in Collector.spans if span.trace_id.hex() == TRACE]):
            assert time.monotonic() < end, "no span came"
            time.sleep(0.1)
        assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in own)
        assert not any("Senate" in str(span) for span in own), "a text stands in a trace"
    finally:
        running.close()
