# One image, three commands: `herder serve` (the default), `herder courier`, `herder-worker`.
# Build: docker build -t llama-herder .

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /srv/herd
# The image may run on another processor than it was built on: no -march=native.
# For a GPU: --build-arg CMAKE_ARGS="-DGGML_CUDA=on", on images that have CUDA.
ARG CMAKE_ARGS="-DGGML_NATIVE=OFF"
ENV CMAKE_ARGS=${CMAKE_ARGS} UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN uv venv /srv/herd/.venv
# The dependencies first: they change seldom and llama-cpp-python compiles for minutes. The lock is a constraint, so
# that its versions and hashes hold, without what it locks for the tests.
COPY pyproject.toml requirements.lock ./
RUN uv pip install --no-cache --constraint requirements.lock --requirement pyproject.toml --extra all
COPY LICENSE README.md ./
COPY herder herder
COPY worker worker
COPY client client
RUN uv pip install --no-cache --no-deps .

FROM python:${PYTHON}-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/herder herder \
    && install --directory --owner=herder --group=herder /var/lib/herder
COPY --from=build /srv/herd/.venv /srv/herd/.venv
COPY tools/health.py /srv/herd/health.py
ENV PATH=/srv/herd/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HERDER_HOST=0.0.0.0 \
    HERDER_DATA_DIR=/var/lib/herder
USER 10001:10001
WORKDIR /var/lib/herder
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/srv/herd/health.py", "api"]
CMD ["herder", "serve"]
