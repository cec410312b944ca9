"""An OpenAI-compatible endpoint that answers every request with the same words after a while.

    python benchmarks/late_endpoint.py 0.05    prints its address, and answers after 50 ms

It reads no more of a request than where it ends, so that it takes little of the cores that it
shares with whom it is to measure.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

TOKENS = (40, 8)
"""Of every prompt and of every answer, as it counts them."""

BODY = json.dumps(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "late",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "It is about money and a vote."},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": TOKENS[0],
            "completion_tokens": TOKENS[1],
            "total_tokens": sum(TOKENS),
        },
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Answering(asyncio.Protocol):
    """One connection; requests come with a length and one after the other, as HTTP clients send."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are whole, each after the while."""
        self._read += data
        while (head := self._read.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._read, 0, head)
            assert length is not None, "every client here says how long a request is"
            end = head + 4 + int(length[1])
            if len(self._read) < end:
                return
            self._read = self._read[end:]
            asyncio.get_running_loop().call_later(self._seconds, self._transport.write, ANSWER)


async def serve(seconds: float) -> None:
    """Answer until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(seconds), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
