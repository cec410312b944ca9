"""A real HTTP server that speaks what a push to the hub needs, and keeps what it was given."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from aiohttp import web


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[dict[str, Any]]] = field(default_factory=list)


@dataclass
class Hub:
    url: str = ""
    token: str = "hf_a-token-that-nobody-may-see"
    repositories: dict[str, Repository] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Metadata of models that are only looked up."""
    large: dict[str, bytes] = field(default_factory=dict)
    """Uploaded objects by the SHA-256 of their content."""
    broken: str = ""
    """Part of a path that is answered with an error."""

    @web.middleware
    async def gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.broken and self.broken in request.path:
            return web.Response(status=400)
        reading = request.method in ("GET", "HEAD") or "/objects/" in request.path
        allowed = request.headers.get("Authorization") == f"Bearer {self.token}"
        if not allowed and not reading and request.path != "/api/validate-yaml":
            return web.Response(status=401)
        return await handler(request)

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            return web.json_response({"url": f"{self.url}/{name}"}, status=409)
        self.repositories[name] = Repository(private=body["visibility"] == "private")
        return web.json_response({"url": f"{self.url}/{name}"})

    async def info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name in self.cards:
            return web.json_response({"id": name, "cardData": self.cards[name]})
        if name not in self.repositories:
            return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        found = self.repositories[name]
        files = [{"rfilename": file} for file in found.files]
        return web.json_response({"id": name, "private": found.private, "siblings": files})

    async def validate(self, request: web.Request) -> web.Response:
        head = (await request.json())["content"].split("---")[1]
        yaml.safe_load(head)
        return web.json_response({"errors": [], "warnings": []})

    async def preupload(self, request: web.Request) -> web.Response:
        files = (await request.json())["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        return web.json_response({"files": modes})

    async def batch(self, request: web.Request) -> web.Response:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}", "header": {}}},
            }
            for one in (await request.json())["objects"]
        ]
        return web.json_response({"transfer": "basic", "objects": objects})

    async def upload(self, request: web.Request) -> web.Response:
        content = await request.read()
        assert hashlib.sha256(content).hexdigest() == request.match_info["oid"]
        self.large[request.match_info["oid"]] = content
        return web.Response()

    async def commit(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        lines = [json.loads(line) for line in (await request.text()).splitlines()]
        repository = self.repositories[name]
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                repository.files[value["path"]] = self.large[value["oid"]]
            elif key == "deletedFile":
                del repository.files[value["path"]]
        repository.commits.append(lines)
        answer = {"commitUrl": f"{self.url}/{name}/commit/1", "commitOid": "1", "success": True}
        return web.json_response(answer)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub in a thread of its own."""
    hub, ready, loop = Hub(), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[hub.gate])
        name = r"{name:[^/]+/[^/]+}"
        app.router.add_post("/api/repos/create", hub.create)
        app.router.add_post("/api/validate-yaml", hub.validate)
        app.router.add_get(f"/api/models/{name}", hub.info)
        app.router.add_post(f"/api/models/{name}/preupload/main", hub.preupload)
        app.router.add_post(f"/api/models/{name}/commit/main", hub.commit)
        app.router.add_post(f"/{name}.git/info/lfs/objects/batch", hub.batch)
        app.router.add_put("/objects/{oid}", hub.upload)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    yield hub
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
