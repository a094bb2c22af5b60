# arcedge on x86-64, or a Raspberry Pi: docker build -t arcedge . runs on the CPU; with --target gpu, on an NVIDIA GPU
# through TensorRT. It takes buildx (apt install docker-buildx): without it Docker fetches NVIDIA's images for the CPU too.
# Both have what edge run and encrypted galleries may ask for: the page, MQTT, NATS, keys, signatures.

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS kernels
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY kernels kernels
RUN cmake --preset desktop && cmake --build --preset desktop

FROM nvcr.io/nvidia/tensorrt:25.08-py3 AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/arcedge \
    && useradd --create-home --uid 2015 --groups video arcedge \
    && install -d -o arcedge -g arcedge -m 700 /var/cache/arcedge
WORKDIR /src
COPY pyproject.toml LICENSE README.md ./
COPY edge edge
COPY training training
COPY export export
COPY benchmarks benchmarks
COPY model_weights model_weights
RUN /opt/arcedge/bin/pip install --no-cache-dir \
    '.[live,mqtt,nats,crypto,sign]' 'onnxruntime<1.29' 'cuda-bindings>=13,<14'
COPY --from=kernels /src/build/desktop/arcedge.fatbin /opt/arcedge/arcedge.fatbin
ENV PATH=/opt/arcedge/bin:$PATH \
    ARCEDGE_KERNELS=/opt/arcedge/arcedge.fatbin \
    ARCEDGE_CACHE=/var/cache/arcedge \
    PYTHONUNBUFFERED=1
USER 2015
WORKDIR /home/arcedge
VOLUME /var/cache/arcedge
# Asks the page of --serve whether every camera gives results. Engines may be built first, which takes minutes.
HEALTHCHECK --interval=60s --timeout=20s --start-period=30m CMD ["python3", "-m", "edge.live.health"]
ENTRYPOINT ["edge"]
CMD ["doctor"]

FROM python:3.12-slim AS cpu-build
WORKDIR /src
COPY pyproject.toml LICENSE README.md ./
COPY edge edge
COPY training training
COPY export export
COPY benchmarks benchmarks
COPY model_weights model_weights
# Later releases of ONNX Runtime are a third larger and 6 MB more of them are resident: docs/camera.md.
RUN python -m venv /opt/arcedge && /opt/arcedge/bin/pip install --no-cache-dir \
    '.[openvino,live,mqtt,nats,crypto,sign]' 'onnxruntime<1.29'

FROM python:3.12-slim AS cpu
RUN useradd --create-home --uid 2015 --groups video arcedge \
    && install -d -o arcedge -g arcedge -m 700 /var/cache/arcedge
COPY --from=cpu-build /opt/arcedge /opt/arcedge
ENV PATH=/opt/arcedge/bin:$PATH \
    ARCEDGE_CACHE=/var/cache/arcedge \
    PYTHONUNBUFFERED=1
USER 2015
WORKDIR /home/arcedge
# What --engine auto measured, also where the rest is read only.
VOLUME /var/cache/arcedge
# Asks the page of --serve whether every camera gives results.
HEALTHCHECK --interval=60s --timeout=20s --start-period=2m CMD ["python3", "-m", "edge.live.health"]
ENTRYPOINT ["edge"]
CMD ["doctor"]
