# Jetson with JetPack 7 (L4T 38.x, 39.x): TensorRT 10.16, CUDA 13, Python 3.12. Thor, Orin from JetPack 7.2 on.
#   docker build -f docker/jetpack7.Dockerfile -t srdeploy:l4t38 .
# NVIDIA publishes no l4t-tensorrt for it: TensorRT and the CUDA binding come as Python packages for SBSA, the driver
# from the board. TensorRT's libraries come from NVIDIA's own package index, which its package on PyPI asks by itself.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

FROM ubuntu:24.04
# All three are Ubuntu's: https://packages.ubuntu.com/noble/
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && usermod --append --groups video ubuntu
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/srdeploy \
    && /opt/srdeploy/bin/pip install --no-cache-dir --find-links /wheels \
        srdeploy "tensorrt-cu13==10.16.1.11" "cuda-python>=13,<14" \
    && rm -rf /wheels
# The NVIDIA runtime mounts a GPU only into containers that name devices and capabilities:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
ENV PATH=/opt/srdeploy/bin:$PATH \
    SRDEPLOY_L4T="38 39" \
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
