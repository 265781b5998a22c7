#!/usr/bin/env bash
# The model that ships trained further, from raw public datasets to a new model folder and its figures: two cores with AMX (`lscpu` says
# amx_bf16), g++, 20 GiB of memory. Each command goes on where it stopped, so this may be ended (Ctrl-C, SIGTERM to its group) and
# started again.
#
#   runs/medisyn-s-further.sh DATASETS [RUN [train's own options, such as --set dit.n_images=30_000]]
#
# Measured with AMX: ingest 1 to 3 minutes, latents 18, denoiser 17 to 19 images/s, so an hour; figures 40. With AVX-512 units for bf16
# alone the denoiser makes 9 images/s and finding its style clusters takes 7 minutes. With AVX-512 and no such units (--set precision=fp32)
# it makes 6, style clusters take 9 minutes, 23 latents come in a second; with AVX2 alone it makes about 2.
set -euo pipefail
cd "$(dirname "$0")/.."
datasets=${1:?usage: runs/medisyn-s-further.sh DATASETS [RUN [OPTIONS]]}
run=${2:-out/medisyn-s-further}
recipe=${RECIPE:-recipes/medisyn-s-further.toml}
start=${START:-medisyn-s}
collection=${COLLECTION:-data/open}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456   # glibc keeps its pages: up to a fifth faster

runs/open.sh "$datasets" "$collection"
both() {
    "$python" -m torch.distributed.run --standalone --nproc-per-node 2 -m medisyn train "$recipe" -o "$run" --set start="$start" \
        --set "data.collections=[\"$collection\"]" "${@:2}" --stages "$1"
}
both latents "${@:3}"
both dit "${@:3}"
"$python" -m medisyn train "$recipe" -o "$run" --set start="$start" --set "data.collections=[\"$collection\"]" "${@:3}" --stages model,guard
[ -e "$run/model/solver.json" ] || "$python" -m medisyn solver "$run/model" --steps 8
REAL=$collection runs/figures.sh "$run/model" "$run-figures"
echo "The model is $run/model, its figures $run-figures/figures. Try next: $python -m medisyn card $run/model --figures $run-figures/figures"
