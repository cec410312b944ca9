"""One Ray and one Serve for all tests of serving; what a module serves are applications of its own.

Ray tells its sessions apart by the number of their job, and every local Ray begins with the same
one: a Serve that is not shut down before its Ray would be looked for in the next.
"""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ray import serve

from core.recipe_serving import Serve, Tracing
from serving.encoder import encoder_student
from serving.instance import start_serve
from tests.students import make_classifier
from tests.tiny_models import make_chooser


class Collector(HTTPServer):
    """Keeps the spans that it is sent by OTLP over HTTP."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SpanHandler)
        self.spans = []


class SpanHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="package")
def collector():
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="package", autouse=True)
def cluster(collector):
    with pytest.MonkeyPatch.context() as environment:
        # OpenTelemetry's own variables, in the environment that Ray starts in.
        address = f"http://127.0.0.1:{collector.server_port}"
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        # Only what a caller wants traced is.
        start_serve(Serve(port=0, tracing=Tracing(sample=0.0)), None)
        yield
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="package")
def students(tiny_encoder, tmp_path_factory):
    """Three students by name: two that have the same choices, and one that is told them."""
    folder = tmp_path_factory.mktemp("students")
    make_classifier(tiny_encoder, folder / "first", seed=1)
    make_classifier(tiny_encoder, folder / "second", seed=2)
    make_chooser(tiny_encoder, folder / "chooser")
    return {name: encoder_student(str(folder / name)) for name in ("first", "second", "chooser")}
