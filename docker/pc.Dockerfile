# A PC with an NVIDIA GPU: checkpoints, export, TensorRT, TensorRT-RTX, ONNX Runtime, the remote commands.
#   docker build -f docker/pc.Dockerfile -t srdeploy:pc .

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 srdeploy
COPY --from=wheel /wheels /wheels
# CUDA comes with PyTorch and TensorRT as Python packages, all of CUDA 12, the driver from the host: 525 or newer.
RUN python3 -m venv /opt/srdeploy \
    && /opt/srdeploy/bin/pip install --no-cache-dir --find-links /wheels \
        "srdeploy[export,tensorrt,tensorrt-rtx,zoo,sensors,remote]" \
    && rm -rf /wheels
# The NVIDIA runtime mounts a GPU only into containers that name devices and capabilities:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
ENV PATH=/opt/srdeploy/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=all \
    MPLCONFIGDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
USER 1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=60s --start-period=10s --retries=2 \
    CMD ["srdeploy", "doctor", "--json", "--need", "read checkpoints and export"]
ENTRYPOINT ["srdeploy"]
CMD ["doctor"]
