"""Traces of requests, sent by OTLP to a collector."""

import time

import httpx

from core.recipe_section import Device
from core.recipe_serving import Serve
from serving.application import deploy

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_is_traced_from_its_caller_on(collector, students):
    settings = Serve(port=0, device=Device(cpus=0.1))
    running = deploy({"minilm": students["first"]}, settings, name="traced")
    try:
        answer = httpx.post(
            f"{running.url}/v1/classify",
            json={"model": "minilm", "input": "Senate passes budget bill"},
            headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
            timeout=60,
        )
        assert answer.status_code == 200
        end = time.monotonic() + 20
        while not (own := [span for span in collector.spans if span.trace_id.hex() == TRACE]):
            assert time.monotonic() < end, "no span came"
            time.sleep(0.1)
        assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in own)
        assert not any("Senate" in str(span) for span in own), "a text stands in a trace"
    finally:
        running.close()
