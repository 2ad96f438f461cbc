# Jetson with JetPack 5 (L4T 35.x): TensorRT 8.5.2, CUDA 11.4, Python 3.8. Xavier NX and AGX, Orin.
#   docker build -f docker/jetpack5.Dockerfile -t srdeploy:l4t35 .

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

# PyCUDA has no wheel: it is compiled here, where nvcc and the headers are, and only its wheel goes on.
FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2.2-devel AS pycuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-pip \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/cuda/bin:$PATH
RUN python3 -m pip wheel --no-cache-dir -w /wheels "pycuda==2022.2.2" "numpy<1.24"

FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --groups video srdeploy
COPY --from=wheel /wheels /wheels
COPY --from=pycuda /wheels /wheels
# The system's packages stay visible, because TensorRT is one of them.
RUN python3 -m venv --system-site-packages /opt/srdeploy \
    && /opt/srdeploy/bin/pip install --no-cache-dir --upgrade "pip<25" \
    && /opt/srdeploy/bin/pip install --no-cache-dir --find-links /wheels "srdeploy[jetson]" \
    && rm -rf /wheels
ENV PATH=/opt/srdeploy/bin:$PATH \
    SRDEPLOY_L4T="35" \
    MPLCONFIGDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
USER 1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=60s --start-period=10s --retries=2 \
    CMD ["srdeploy", "doctor", "--json", "--need", "container", "--need", "run TensorRT engines"]
ENTRYPOINT ["srdeploy"]
CMD ["doctor"]
