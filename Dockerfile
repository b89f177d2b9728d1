# The images of the gateway, of the embedded model server and of training: `make images`.
# docs/decisions/0007-images.md tells why they are built as they are.

# Anything with Python 3.11 to 3.13, its venv module and certificates.
# checkov:skip=CKV_DOCKER_7: it does not look behind ${BASE}, which has a precise tag
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
# pip has an environment of its own, and installs into /opt/sluice from outside.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/sluice
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
# The same bytes from every build: compiled modules hold neither the time of their source nor the
# order of a set.
ENV SOURCE_DATE_EPOCH=315532800 PYTHONHASHSEED=0
WORKDIR /build

# Sluice itself, in an environment that is laid over the one with its dependencies.
FROM build AS sluice
COPY deploy/locks/build.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: --requirement build.txt
COPY README.md LICENSE pyproject.toml ./
COPY models models
COPY service service
COPY sluice sluice
COPY training training
RUN /opt/pip/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
 && /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-index --no-deps wheels/*

# Lists what an environment holds, in CycloneDX, as /opt/sluice/sbom.cdx.json of each image.
FROM build AS sbom
COPY deploy/locks/sbom.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/sbom \
 && /opt/pip/bin/pip --python /opt/sbom/bin/python install --no-cache-dir \
      --require-hashes --only-binary=:all: --requirement sbom.txt

# What is installed has the hashes of deploy/locks, whichever index it comes from.
FROM build AS gateway-build
COPY deploy/locks/gateway.txt deploy/locks/fast.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-cache-dir \
      --require-hashes --only-binary=:all: --requirement gateway.txt \
 && { /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-cache-dir --no-deps \
        --require-hashes --requirement fast.txt || echo "No compiler: HTTP is parsed in Python"; } \
 && find /opt/sluice -type d -name tests -prune -exec rm -r {} + \
 && find /opt/sluice -type f -name 'simdjson.*' -size +1M -delete  # C++ sources
COPY --from=sluice /opt/sluice /opt/sluice
COPY --from=sbom /opt/sbom /opt/sbom
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
      --output-file /opt/sluice/sbom.cdx.json /opt/sluice/bin/python
COPY deploy/image_root.py ./
RUN python3 image_root.py /opt/sluice /root/fs

FROM scratch AS gateway
COPY --from=gateway-build /root/fs /
ENV PATH=/opt/sluice/bin LANG=C.UTF-8 HOME=/tmp PYTHONUNBUFFERED=1
ARG VERSION=dev
LABEL org.opencontainers.image.title="sluice-gateway" \
      org.opencontainers.image.description="HTTP and gRPC before a TensorFlow model server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 8080 8081
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request as http; from os import environ; http.urlopen(f\"http://127.0.0.1:{int(environ.get('SLUICE_ADMIN_PORT', 8081)) or environ.get('SLUICE_HTTP_PORT', 8080)}/healthz\", timeout=5)"]
# It becomes gunicorn: process 1, which hears SIGTERM.
ENTRYPOINT ["sluice", "gateway"]

FROM build AS tensorflow
COPY deploy/locks/modelserver.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-cache-dir \
      --require-hashes --only-binary=:all: --requirement modelserver.txt \
 && rm -r /opt/sluice/lib/python3.*/site-packages/tensorflow/include  # 450 MB, for C++

FROM tensorflow AS modelserver-sbom
COPY --from=sluice /opt/sluice /opt/sluice
COPY --from=sbom /opt/sbom /opt/sbom
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
      --output-file /opt/sluice/sbom.cdx.json /opt/sluice/bin/python

FROM ${BASE} AS modelserver
COPY --from=tensorflow /opt/sluice /opt/sluice
COPY --from=sluice /opt/sluice /opt/sluice
COPY --from=modelserver-sbom /opt/sluice/sbom.cdx.json /opt/sluice/
# The last two are for NVIDIA's container runtime, and mean nothing without it.
ENV PATH=/opt/sluice/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG VERSION=dev
LABEL org.opencontainers.image.title="sluice-modelserver" \
      org.opencontainers.image.description="The embedded twin of TensorFlow Serving" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 8500 8501
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import grpc, grpc_health.v1.health_pb2 as m, grpc_health.v1.health_pb2_grpc as s; assert s.HealthStub(grpc.insecure_channel('127.0.0.1:8500')).Check(m.HealthCheckRequest(), timeout=5).status == 1"]
ENTRYPOINT ["sluice", "modelserver"]
CMD ["--model_repository=/models"]

FROM tensorflow AS training-build
COPY deploy/locks/training.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-cache-dir \
      --require-hashes --only-binary=:all: --requirement training.txt

FROM training-build AS training-sbom
COPY --from=sluice /opt/sluice /opt/sluice
COPY --from=sbom /opt/sbom /opt/sbom
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
      --output-file /opt/sluice/sbom.cdx.json /opt/sluice/bin/python

FROM ${BASE} AS training
COPY --from=training-build /opt/sluice /opt/sluice
COPY --from=sluice /opt/sluice /opt/sluice
COPY --from=training-sbom /opt/sluice/sbom.cdx.json /opt/sluice/
ENV PATH=/opt/sluice/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG VERSION=dev
LABEL org.opencontainers.image.title="sluice-training" \
      org.opencontainers.image.description="Trains Keras models and publishes them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
# Nothing listens here; the run's end is its health.
HEALTHCHECK NONE
ENTRYPOINT ["sluice", "train"]
CMD ["digits", "--model-repository=/models"]

# What tensorflow[and-cuda] adds to TensorFlow, 3 GB, as a layer on top of the same images.
FROM build AS cuda
COPY deploy/locks/nvidia.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/sluice/bin/python install --no-cache-dir --no-deps \
      --require-hashes --only-binary=:all: --requirement nvidia.txt
COPY --from=sbom /opt/sbom /opt/sbom
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
      --output-file /opt/sluice/nvidia.cdx.json /opt/sluice/bin/python

FROM training AS training-gpu
COPY --from=cuda /opt/sluice /opt/sluice
LABEL org.opencontainers.image.title="sluice-training-gpu"

FROM modelserver AS modelserver-gpu
COPY --from=cuda /opt/sluice /opt/sluice
LABEL org.opencontainers.image.title="sluice-modelserver-gpu"
