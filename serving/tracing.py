"""OpenTelemetry traces: Serve makes the spans of a request, and this sends them away."""

from __future__ import annotations

from typing import Any

from ray.serve.schema import TracingConfig

from core.errors import UseError
from core.recipe_serving import Tracing


def tracing_config(tracing: Tracing | None) -> TracingConfig | None:
    """What Serve is told of tracing; None leaves it to Serve's own environment variables.

    Raises:
        UseError: OpenTelemetry is not installed.
    """
    if tracing is None:
        return None
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError:
        raise UseError(
            "serve.tracing",
            "OpenTelemetry is not installed.",
            "Install the extra: pip install -e '.[tracing]'.",
        ) from None
    return TracingConfig(
        enabled=True,
        exporter_import_path="serving.tracing:otlp_exporter",
        sampling_ratio=tracing.sample,
    )


def otlp_exporter() -> list[Any]:
    """Send spans by OTLP over HTTP, in batches; Serve calls this in each of its processes."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]
