#!/usr/bin/env bash
# MediSyn-S without a GPU: two cores with bf16 units (`lscpu` says amx_bf16), g++, 20 GiB of memory, a night. Each command goes on where
# it stopped, so this script may be ended (Ctrl-C, SIGTERM to its group) and started again.
#
#   runs/medisyn-s-cpu.sh [RUN]          the collection is data/open, as runs/open.sh makes it
#
# Measured: text 45 minutes beside two thirds of vae, each on a core; the rest of vae 30 on both; latents 15; denoiser 65 to 72 images/s
# at 128 pixels, so an hour, and 19 to 21 at 256, so two hours; decoder 30 minutes; recogniser 12 on one core; guard 1; solver 20. Figures: runs/figures.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-out/medisyn-s-cpu}
recipe=${RECIPE:-recipes/medisyn-s-cpu.toml}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE   # two threads on a loaded machine are slower than one
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456   # glibc keeps its pages: up to a fifth faster
one() { "$python" -m medisyn train "$recipe" -o "$run" "$@"; }
both() { "$python" -m torch.distributed.run --standalone --nproc-per-node 2 -m medisyn train "$recipe" -o "$run" "$@"; }

one --stages text & text=$!
one --stages vae
wait "$text"
both --stages latents
both --stages dit
both --stages decoder
one --stages recogniser,model,guard
[ -e "$run/model/solver.json" ] || "$python" -m medisyn solver "$run/model" --steps 8
