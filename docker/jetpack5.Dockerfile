# Jetson with JetPack 5 (L4T 35.x): TensorRT 8.5.2, CUDA 11.4, Python 3.8. Xavier NX and AGX, Orin.
#   docker build -f docker/jetpack5.Dockerfile -t srdeploy:l4t35 .

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

# PyCUDA has no wheel: it is compiled here, where nvcc and the headers are, and only its wheel goes on.
FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2.2-devel AS pycuda
# The list of the CUDA repository is removed first: the key in the image is older than NVIDIA's change of keys in 2022
# (https://developer.nvidia.com/blog/updating-the-cuda-linux-gpg-repository-key/), and `apt-get update` fails on it.
# NVIDIA does so on this image: https://github.com/nvidia-holoscan/holoscan-sdk/blob/v0.6.0/Dockerfile
# g++, python3-dev and python3-pip are Ubuntu's: https://packages.ubuntu.com/focal/
# hadolint ignore=DL3008
RUN rm -f /etc/apt/sources.list.d/cuda*.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-pip \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/cuda/bin:$PATH
RUN python3 -m pip wheel --no-cache-dir -w /wheels "pycuda==2022.2.2" "numpy<1.24"

FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime
# python3-libnvinfer is in NVIDIA's Jetson repository, which a board has from the start and this image has not:
# https://docs.nvidia.com/jetson/archives/r35.4.1/DeveloperGuide/text/SD/SoftwarePackagesAndTheUpdateMechanism.html
# Its TensorRT is 8.5.2, as in the image: https://docs.nvidia.com/jetson/archives/jetpack-archived/jetpack-512/
# Key and list are those of https://github.com/nvidia-holoscan/holoscan-sdk/blob/main/Dockerfile (stage base-igpu).
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /usr/share/keyrings/jetson-ota-public.asc
# ca-certificates comes from Ubuntu before apt is sent to an https repository; cuda*.list goes as above.
# python3 and python3-venv are Ubuntu's: https://packages.ubuntu.com/focal/
# hadolint ignore=DL3008
RUN chmod 644 /usr/share/keyrings/jetson-ota-public.asc \
    && rm -f /etc/apt/sources.list.d/cuda*.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb [signed-by=/usr/share/keyrings/jetson-ota-public.asc]" \
        "https://repo.download.nvidia.com/jetson/common r35.4 main" \
        > /etc/apt/sources.list.d/nvidia-l4t-apt-source.list \
    && apt-get update \
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
# The NVIDIA runtime mounts a GPU only into containers that name devices and capabilities:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
ENV PATH=/opt/srdeploy/bin:$PATH \
    SRDEPLOY_L4T="35" \
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
