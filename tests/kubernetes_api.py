"""A small stand-in of the Kubernetes API over HTTPS: objects by their paths, and no more.

It knows what its two clients use: Ray's autoscaler, which reads pods and patches RayClusters, and
the official Python client with discovery and server-side apply. Whoever knows no certificate of
its authority, or no token, is refused.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import jsonpatch
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Object = dict[str, Any]

KINDS = {
    "v1": {
        "Namespace": "namespaces",
        "ServiceAccount": "serviceaccounts",
        "ConfigMap": "configmaps",
        "Secret": "secrets",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Service": "services",
        "Event": "events",
    },
    "apps/v1": {"StatefulSet": "statefulsets"},
    "batch/v1": {"Job": "jobs"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "ray.io/v1": {
        "RayCluster": "rayclusters",
        "RayJob": "rayjobs",
        "RayService": "rayservices",
        "RayCronJob": "raycronjobs",
    },
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"},
}
"""Kinds of objects and their names in paths, by group and version."""


class RefusedError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Place(NamedTuple):
    """Where an object is."""

    version: str
    plural: str
    namespace: str
    name: str


@dataclass
class Store:
    """The objects, by group and version, kind, namespace and name."""

    objects: dict[Place, Object] = field(default_factory=dict)
    logs: Callable[[str], str] = lambda _: ""
    """What a pod has written, by its name."""
    unknown: set[str] = field(default_factory=set)
    """Groups that this cluster does not have."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0

    def put(self, version: str, plural: str, content: Object) -> Object:
        """Make or replace an object."""
        with self.lock:
            self.version += 1
            metadata = content["metadata"]
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", f"uid-{self.version}")
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata.setdefault("creationTimestamp", now)
            key = Place(version, plural, metadata.get("namespace", ""), metadata["name"])
            self.objects[key] = content
            return content

    def get(self, version: str, plural: str, namespace: str, name: str) -> Object:
        """An object; raises `RefusedError` where there is none."""
        with self.lock:
            found = self.objects.get(Place(version, plural, namespace, name))
            if found is None:
                raise RefusedError(404, "NotFound", f'{plural} "{name}" not found')
            return deepcopy(found)

    def of_kind(
        self, version: str, plural: str, namespace: str = "", selector: str = ""
    ) -> list[Object]:
        """Objects of a kind with some labels; of all namespaces where none is given."""
        wanted = dict(part.split("=", 1) for part in selector.replace("==", "=").split(",") if part)
        with self.lock:
            return [
                deepcopy(found)
                for (v, p, n, _), found in sorted(self.objects.items())
                if (v, p) == (version, plural)
                and namespace in ("", n)
                and wanted.items() <= found["metadata"].get("labels", {}).items()
            ]

    def delete(self, version: str, plural: str, namespace: str, name: str) -> Object:
        """Take an object away, and those that it owns."""
        with self.lock:
            found = self.get(version, plural, namespace, name)
            del self.objects[Place(version, plural, namespace, name)]
            for (v, p, n, other), content in list(self.objects.items()):
                owners = content["metadata"].get("ownerReferences", [])
                if any(owner["uid"] == found["metadata"]["uid"] for owner in owners):
                    self.delete(v, p, n, other)
            return found


class KubernetesApi:
    """The server, on a free port of this machine, with an authority of its own."""

    def __init__(self, folder: Path, token: str) -> None:
        self.store = Store()
        self.token = token
        self.certificates = make_certificates(folder)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.server, self.certificates.server_key)
        context.load_verify_locations(self.certificates.authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> KubernetesApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, file: Path) -> Path:
        """Write what kubectl and the Python client read, with the token."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [
                {
                    "name": "here",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.certificates.authority),
                    },
                }
            ],
            "users": [{"name": "me", "user": {"token": self.token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        file.write_text(yaml.safe_dump(content))
        return file

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length) if length else b""
                try:
                    self._check_caller()
                    status, content = 200, api._route(self, body)
                except RefusedError as error:
                    status = error.status
                    content = {
                        "kind": "Status",
                        "apiVersion": "v1",
                        "status": "Failure",
                        "code": status,
                        "reason": error.reason,
                        "message": str(error),
                    }
                is_text = isinstance(content, str)
                raw = content.encode() if is_text else json.dumps(content).encode()
                self.send_response(status)
                kind = "text/plain" if is_text else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _check_caller(self) -> None:
                has_certificate = bool(self.connection.getpeercert())
                has_token = self.headers.get("Authorization") == f"Bearer {api.token}"
                if not (has_certificate or has_token):
                    raise RefusedError(401, "Unauthorized", "Unauthorized")

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

        return Handler

    def _route(self, request: BaseHTTPRequestHandler, body: bytes) -> Any:
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if found := self._discovery(parts):
            return found
        place, sub = self._place(parts)
        if sub == "log":
            self.store.get(*place)
            return self.store.logs(place.name)
        content = yaml.safe_load(body) if body else None
        if request.command == "GET" and not place.name:
            return self._list(place, query.get("labelSelector", ""))
        answers = {
            "GET": lambda: self.store.get(*place),
            "POST": lambda: self._create(place, content),
            "DELETE": lambda: self.store.delete(*place),
            "PATCH": lambda: self._patch(place, request.headers["Content-Type"], content),
        }
        return answers[request.command]()

    def _place(self, parts: list[str]) -> tuple[Place, str]:
        """What a path names, and what is wanted of it beside itself."""
        version, rest = (
            ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        )
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = (*rest, "", "")[:3]
        if plural not in KINDS.get(version, {}).values() or version in self.store.unknown:
            raise RefusedError(404, "NotFound", "the server could not find the requested resource")
        return Place(version, plural, namespace, name), sub

    def _list(self, place: Place, selector: str) -> Object:
        items = self.store.of_kind(place.version, place.plural, place.namespace, selector)
        kind = next(k for k, p in KINDS[place.version].items() if p == place.plural)
        return {
            "kind": f"{kind}List",
            "apiVersion": place.version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": items,
        }

    def _create(self, place: Place, content: Object) -> Object:
        with self.store.lock:
            if place.namespace:
                content["metadata"]["namespace"] = place.namespace
            named = place._replace(name=content["metadata"]["name"])
            if named in self.store.objects:
                raise RefusedError(
                    409, "AlreadyExists", f'{named.plural} "{named.name}" already exists'
                )
            return self.store.put(place.version, place.plural, content)

    def _patch(self, place: Place, form: str, content: Any) -> Object:
        with self.store.lock:
            if form == "application/apply-patch+yaml" and place not in self.store.objects:
                self._in_namespace(place.namespace)
                found: Object = {"metadata": {}}
            else:
                found = self.store.get(*place)
            if form == "application/json-patch+json":
                try:
                    found = jsonpatch.apply_patch(found, content)
                except jsonpatch.JsonPatchException as error:
                    raise RefusedError(422, "Invalid", str(error)) from error
            else:
                found = merged(found, content)
            return self.store.put(place.version, place.plural, found)

    def _in_namespace(self, namespace: str) -> None:
        if namespace and Place("v1", "namespaces", "", namespace) not in self.store.objects:
            raise RefusedError(404, "NotFound", f'namespaces "{namespace}" not found')

    def _discovery(self, parts: list[str]) -> Object | None:
        """What the Python client asks to learn which kinds there are."""
        known = [version for version in KINDS if version not in self.store.unknown]
        if parts == ["version"]:
            return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        if parts == ["apis"]:
            groups = []
            for version in known:
                if "/" in version:
                    at = {"groupVersion": version, "version": version.partition("/")[2]}
                    name = version.partition("/")[0]
                    groups.append({"name": name, "versions": [at], "preferredVersion": at})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        version = "/".join(parts[1:])
        if version in known and len(parts) == 1 + len(version.split("/")):
            resources = [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "namespaced": kind != "Namespace",
                    "kind": kind,
                    "verbs": ["create", "delete", "get", "list", "patch", "update"],
                }
                for kind, plural in KINDS[version].items()
            ]
            return {
                "kind": "APIResourceList",
                "groupVersion": version,
                "resources": resources,
            }
        return None


def merged(old: Any, new: Any) -> Any:
    """A JSON merge patch: mappings are merged, null takes away, all else is replaced."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    found = dict(old)
    for key, value in new.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(old.get(key), value)
    return found


@dataclass(frozen=True)
class Certificates:
    """Files of the authority, the server and one client."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """An authority, and what it has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("stand-in authority")
    authority = _certificate(name, name, key.public_key(), key, authority=True)
    found = Certificates(
        **{one: folder / f"{one}.pem" for one in Certificates.__dataclass_fields__}
    )
    found.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for role in ("server", "client"):
        own = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(_name(role), name, own.public_key(), key, authority=False)
        getattr(found, role).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        getattr(found, f"{role}_key").write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return found


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: Any, key: Any, *, authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(signer, critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def names(objects: list[Object]) -> Iterator[str]:
    """The names of objects."""
    return (one["metadata"]["name"] for one in objects)
