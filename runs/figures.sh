#!/usr/bin/env bash
# Every figure of docs/model.md, for one model: what a classifier of real images recognises, novelty, reconstruction, texture, distances,
# the guard, free wording, seconds and memory. Each command goes on where it stopped, so this may be ended and started again.
#
#   runs/figures.sh MODEL [OUT]          the collection is data/open, as runs/open.sh makes it
#   BACKEND=openvino-bf16 runs/figures.sh MODEL [OUT]      where the CPU has bf16 units: the same figures in less time
#   UTILITY=1 runs/figures.sh MODEL [OUT]                  and what its images teach: an hour more
#
# Tables and sheets of synthetic images end up in OUT/figures; what holds real images stays in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:?usage: runs/figures.sh MODEL [OUT]}
out=${2:-out/figures-$(basename "$model")}
real=${REAL:-data/open}
backend=${BACKEND:-torch}
judge=${JUDGE:-out/judge/judge.safetensors}   # one for all models
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
mkdir -p "$out/figures"
name=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["name"])' "$model/medisyn.json")
bench() { "$python" "benchmarks/$1.py" "${@:2}"; }
once() {   # FILE COMMAND...: what is there is not made again
    [ -e "$1" ] || "${@:2}"
}

of_images() {
    bench recognition --real "$real" --model "$model" -o "$out/recognition" --judge "$judge" --backend "$backend"
    once "$out/novelty/novelty.md" bench novelty --synthetic "$out/recognition/synthetic" --real "$real" --judge "$judge" -o "$out/novelty"
    once "$out/report/report.json" "$python" -m medisyn evaluate --real "$real:train" --unseen "$real:test" \
        --synthetic "$out/recognition/synthetic" -o "$out/report" --only validity,fidelity,alignment,novelty
    bench distances --report "$out/report" -o "$out/distances" --name "$name"
}
of_the_model() {
    once "$out/texture/texture.md" bench texture --real "$real" --model "$model" -o "$out/texture" --backend "$backend" --each 10 --steps 8 12 50
    bench held_out --model "$model" --real "$real" -o "$out/figures" --private "$out/held-out"
}
of_images & images=$!
of_the_model
wait "$images"
once "$out/reading/reading.md" bench reading --model "$model" -o "$out/reading"
once "$out/guard/guard.md" bench guard --model "$model" --real "$real" -o "$out/guard"
once "$out/speed/speed.md" bench generate --model "$model" -o "$out/speed"   # alone: others slow it
cp "$out/recognition/results.md" "$out/figures/recognition.md"
for figure in novelty distances texture guard reading speed; do
    cp "$out/$figure/$figure.md" "$out/figures"
done

if [ -n "${UTILITY:-}" ]; then
    { echo prompt; printf 'blood smear with a %s\n' basophil eosinophil erythroblast "immature granulocyte" lymphocyte monocyte neutrophil platelet
    } > "$out/cells.csv"
    "$python" -m medisyn generate --prompts "$out/cells.csv" -n 60 -o "$out/cells" --backend "$backend"
    "$python" -m medisyn utility --real "$real:train" --unseen "$real:test" --synthetic "$out/cells" --task blood_smear/cell -n 100 -o "$out/utility"
fi
