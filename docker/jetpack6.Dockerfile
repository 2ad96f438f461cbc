# Jetson with JetPack 6 (L4T 36.x): TensorRT 10.3, CUDA 12.6, Python 3.10. Orin.
#   docker build -f docker/jetpack6.Dockerfile -t srdeploy:l4t36 .

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

# PyCUDA has no wheel: it is compiled here, where nvcc and the headers are, and only its wheel goes on.
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel AS pycuda
# Ubuntu's packages install on this image as it is:
# https://github.com/NEWSLabNTU/openadkit/blob/main/components/common/Dockerfile.jp62
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-pip \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/cuda/bin:$PATH
RUN python3 -m pip wheel --no-cache-dir -w /wheels "pycuda==2024.1.2"

FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime
# The image has no list of NVIDIA's Jetson repository, where python3-libnvinfer is. Key and list as in
# https://github.com/ika-rwth-aachen/docker-ros-ml-images/blob/main/Dockerfile (on this image) and NVIDIA's own
# https://github.com/nvidia-holoscan/holoscan-sdk/blob/main/Dockerfile (stage base-igpu). r36.4 has TensorRT 10.3, as
# the image has: https://docs.nvidia.com/jetson/archives/jetpack-archived/jetpack-62/
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /usr/share/keyrings/jetson-ota-public.asc
# ca-certificates comes from Ubuntu before apt is sent to an https repository.
# python3 and python3-venv are Ubuntu's: https://packages.ubuntu.com/jammy/
# hadolint ignore=DL3008
RUN chmod 644 /usr/share/keyrings/jetson-ota-public.asc \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb [signed-by=/usr/share/keyrings/jetson-ota-public.asc]" \
        "https://repo.download.nvidia.com/jetson/common r36.4 main" \
        > /etc/apt/sources.list.d/nvidia-l4t-apt-source.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --groups video srdeploy
COPY --from=wheel /wheels /wheels
COPY --from=pycuda /wheels /wheels
# The system's packages stay visible, because TensorRT is one of them.
RUN python3 -m venv --system-site-packages /opt/srdeploy \
    && /opt/srdeploy/bin/pip install --no-cache-dir --upgrade pip \
    && /opt/srdeploy/bin/pip install --no-cache-dir --find-links /wheels "srdeploy[jetson]" \
    && rm -rf /wheels
# The NVIDIA runtime mounts a GPU only into containers that name devices and capabilities:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
ENV PATH=/opt/srdeploy/bin:$PATH \
    SRDEPLOY_L4T="36" \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=all \
    MPLCONFIGDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
USER 1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=60s --start-period=10s --retries=2 \
    CMD ["srdeploy", "doctor", "--json", "--need", "container", "--need", "run TensorRT engines"]
ENTRYPOINT ["srdeploy"]
CMD ["doctor"]
