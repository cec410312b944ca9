# syntax=docker/dockerfile:1
# The image of training workers, of the head with its driver, and of work without a device: Ray with
# DeepSpeed, and all that curates and reports.
# From the project's root:
#
#   docker build -f cluster/images/trainer.Dockerfile -t REGISTRY/stillhouse-trainer:VERSION .
#
# Build all three from one commit: objects travel between their pods. Where pip needs another index
# than its own, pass --build-arg PIP_INDEX_URL=... .
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/stillhouse
ENV PATH=/opt/stillhouse/bin:$PATH
# Before the sources: what changes seldom is built seldom.
COPY requirements/trainer.lock /build/
RUN pip install --no-deps -r /build/trainer.lock
WORKDIR /build/source
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY pipelines pipelines
COPY training training
COPY serving serving
COPY cluster cluster
COPY stillhouse stillhouse
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}
# gcc and headers: Triton compiles its launchers with them. wget: KubeRay's probes of served pods.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 stillhouse \
    && useradd --uid 10001 --gid 10001 --create-home stillhouse \
    && mkdir -p /stillhouse/cache /stillhouse/runs /stillhouse/recipe \
    && chown -R 10001:10001 /stillhouse
COPY --from=build /opt/stillhouse /opt/stillhouse
# Nothing is written beside the code: the root file system of the pods is read-only.
ENV PATH=/opt/stillhouse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/stillhouse
# KubeRay brings the command and the probes.
HEALTHCHECK NONE
CMD ["stillhouse", "--help"]
