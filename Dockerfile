# The service, nothing else: no compiler, no package manager of ours, no shell is needed to run it.
# Any image with CPython >= 3.11 and its venv module will do as base; `make test-deploy` builds from a Debian of its own.
ARG BASE=docker.io/library/python:3.13-slim-bookworm@sha256:01f42367a0a94ad4bc17111776fd66e3500c1d87c15bbd6055b7371d39c124fb

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
# What is installed beside the service. `external`: consolidators of detectors' files; `demo`: a simulated beamline.
ARG EXTRA=external
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/app \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
# The dependencies are a layer of their own: it changes with the lock file alone. (Whether that fits `pyproject.toml`
# is checked below, by `--locked`, which needs the sources for the version.)
COPY pyproject.toml uv.lock ./
RUN /uv/bin/uv sync --frozen --no-dev --no-editable --no-install-project --python python3 --extra "${EXTRA}"
COPY README.md LICENSE ./
COPY service service
RUN /uv/bin/uv sync --locked --no-dev --no-editable --python python3 --extra "${EXTRA}" \
    && /app/bin/tiled-ingest --version

FROM ${BASE}
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tiled-ingest" \
      org.opencontainers.image.description="From a beamline's Kafka to Tiled, exactly once" \
      org.opencontainers.image.source="https://github.com/bluesky/tiled-ingest" \
      org.opencontainers.image.documentation="https://github.com/bluesky/tiled-ingest/tree/main/docs" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing under /app is writable for the user that runs it; `/tmp` is all that it may need.
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
# The smoke test: everything that `run` imports can be imported, by the user that will.
USER 10001:10001
RUN ["/app/bin/python", "-c", "import tiled_ingest.wiring, tiled_ingest.tools.check"]
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/bin/tiled-ingest"]
CMD ["run"]
