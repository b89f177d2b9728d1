#!/usr/bin/env bash
# The graphs of a version on this machine's NVIDIA GPU, in about ten minutes: tables of images a
# second. TensorFlow Serving's GPU image answers where docker can run it; else Sluice's own model
# server does, on a TensorFlow with CUDA (pip install 'tensorflow[and-cuda]' in .venv).
#
#   benchmarks/gpu.sh [--models resnet50,vgg16] [--batches 1,8,32] [--seconds 3]
#
# IMAGE: TensorFlow Serving's, tensorflow/serving:2.19.1-gpu if not set; IMAGE= for none.
set -euo pipefail
cd "$(dirname "$0")/.."
IMAGE=${IMAGE-tensorflow/serving:2.19.1-gpu}
PYTHON=.venv/bin/python

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader ||
  { echo "There is no NVIDIA GPU here, or no driver: nvidia-smi has to work" >&2; exit 1; }
[ -x "$PYTHON" ] || { echo "Install Sluice first: make install" >&2; exit 1; }

if [ -n "$IMAGE" ] && docker run --rm --gpus all --entrypoint nvidia-smi "$IMAGE" >/dev/null 2>&1; then
  exec "$PYTHON" benchmarks/gpu.py --image "$IMAGE" "$@"
fi
"$PYTHON" -c 'import tensorflow as tf; assert tf.config.list_physical_devices("GPU")' 2>/dev/null ||
  { echo "docker cannot run $IMAGE on the GPU, and TensorFlow sees none: pip install 'tensorflow[and-cuda]'" >&2
    exit 1; }
exec "$PYTHON" benchmarks/gpu.py "$@"
