#!/usr/bin/env bash
# MediSyn-S without a GPU: two cores with bf16 units (`lscpu` says amx_bf16), g++, 20 GiB of memory, hours. Each command resumes where it
# stopped, so this script may be started again and again; STOP=SECONDS ends it in time (SIGTERM: saved).
#
#   runs/medisyn-s-cpu.sh [RUN]          the collection is data/open, as runs/medisyn-xs.sh ingests it
#
# Measured: text 40 minutes and vae 65 side by side on a core each, latents 12, denoiser 90 images/s at 128 pixels and 20 at 256 on both.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-out/medisyn-s-cpu}
recipe=${RECIPE:-recipes/medisyn-s-cpu.toml}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE   # two threads on a loaded machine are slower than one
one() { ${STOP:+timeout -s TERM "$STOP"} "$python" -m medisyn train "$recipe" -o "$run" "$@"; }
both() { ${STOP:+timeout -s TERM "$STOP"} "$python" -m torch.distributed.run --nproc-per-node 2 -m medisyn train "$recipe" -o "$run" "$@"; }

one --stages text &
one --stages vae
wait
both --stages latents
both --stages dit
one --stages decoder &
one --stages recogniser
wait
one --stages model,guard
