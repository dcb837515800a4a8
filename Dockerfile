# An image that runs as any user, without a home folder, with a read-only root file system.
#
#   docker build -t jaxad .                                 # CPU
#   docker build -t jaxad:cuda --build-arg DEVICE=cuda .    # NVIDIA GPUs
#   docker build -t jaxad:tpu --build-arg DEVICE=tpu .      # Cloud TPU
#   docker run --rm --read-only --user $(id -u):$(id -g) -v "$WORKDIR:/data" jaxad \
#     --config=pchvae:smoke --workdir=/data/smoke
#
# Everything that a run writes is below /data. See docs/launching.md.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ARG DEVICE=cpu
WORKDIR /opt/jaxad
COPY pyproject.toml README.md LICENSE ./
COPY configs ./configs
COPY jaxad ./jaxad
RUN case "$DEVICE" in \
      cpu) extras="dicom,gcs,hub,s3" ;; \
      cuda|tpu) extras="dicom,gcs,hub,s3,$DEVICE" ;; \
      *) echo "DEVICE=$DEVICE: must be cpu, cuda, or tpu" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir ".[$extras]" \
    && mkdir -m 1777 /data

# Caches and generated data; the only folder besides --workdir and --output that is written. Without
# TFDS_DATA_DIR, generated data of root would go to /root and be lost with the container.
# LD_LIBRARY_PATH: where GKE mounts NVIDIA's driver; the folder does not exist elsewhere.
ENV XDG_CACHE_HOME=/data/.cache \
    TFDS_DATA_DIR=/data/.cache/tensorflow_datasets \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /data
VOLUME /data
USER 12345:12345
ENTRYPOINT ["jaxad"]
CMD ["--help"]
