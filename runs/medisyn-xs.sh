#!/usr/bin/env bash
# From raw public datasets to MediSyn-XS, the quick model that ships: every command, in order. Each resumes where it stopped.
#
#   runs/medisyn-xs.sh DATASETS [RUN]
#
# DATASETS holds one folder a dataset, named as `medisyn sources` names it, each in its own original layout.
# About 6 hours on two CPU cores: text and vae 15 minutes each side by side, latents 5, decoder 60 and 75, recogniser 20, denoiser the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
datasets=${1:?usage: runs/medisyn-xs.sh DATASETS [RUN]}
run=${2:-out/medisyn-xs}
recipe=recipes/medisyn-xs.toml
medisyn=${MEDISYN:-.venv/bin/medisyn}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE   # two threads on a loaded machine are slower than one

runs/open.sh "$datasets"

# Text alone and pixels alone: one core each.
"$medisyn" train "$recipe" -o "$run" --stages vae &
"$medisyn" train "$recipe" -o "$run" --stages text
wait
"$medisyn" train "$recipe" -o "$run" --stages latents --set threads=2

# The decoder is sharpened beside the denoiser, which runs as two processes of one thread.
"$medisyn" train "$recipe" -o "$run" --stages decoder &
"$python" -m torch.distributed.run --nproc-per-node 2 -m medisyn train "$recipe" -o "$run" --stages dit
wait
"$medisyn" train "$recipe" -o "$run" --stages recogniser,model

# The decoder once more, against the grid that its adversary leaves; all else is kept.
"$medisyn" train recipes/medisyn-xs-decoder.toml -o "$run-decoder" --set start="$run/model" --set model.name=medisyn-xs

# The figures beside the same on unseen real images; then the card, and the model's place in the package.
model=$run-decoder/model
runs/figures.sh "$model" out/figures-xs
"$medisyn" card "$model" --figures out/figures-xs/figures
rm -rf medisyn/weights/medisyn-xs && mkdir -p medisyn/weights && cp -r "$model" medisyn/weights/medisyn-xs
