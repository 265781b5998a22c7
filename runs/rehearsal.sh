#!/usr/bin/env bash
# runs/reference.sh on a CPU at toy size: prepare, take, go until finished with a kill -9 in every stage, join, generate, again.
#
#   runs/rehearsal.sh FOLDER [COLLECTION]
set -euo pipefail
cd "$(dirname "$0")/.."
home=${1:?usage: runs/rehearsal.sh FOLDER [COLLECTION]}
collection=${2:-data/open}
export MADE=$home/made THERE=$home/there OMP_NUM_THREADS=1 NO_WHEELS=1 LIMIT=${LIMIT:-200} SHARD_MIB=0.5 SIDE=128 STEPS=2
python=${PYTHON:-.venv/bin/python}
small=(image_size=128 data.packed_side=128 device=cpu threads=1 text.n_images=256 text.batch=32 text.corpus=400 text.vocabulary_size=400
    text.width=32 text.heads=2 text.layers=1 text.n_tokens=4 vae.widths=[32,32,32] vae.crop=64 vae.batch=8 vae.decoder_blocks=[0,0,1]
    vae.encoder_blocks=[0,0,1] latents.each_type=8 latents.least_variants=2 decoder.batch=4 decoder.discriminator=8 dit.width=64 dit.heads=2
    dit.depth=4 dit.stem=16 dit.batch=8 dit.first_batch=16 dit.first_side=64 dit.watched=12 dit.captions=2 dit.warmup=4
    dit.guided_least=-9 model.steps=4)
SET=$(printf -- '--set %s ' "${small[@]}")
export SET
minutes=${MINUTES:-12}
rm -rf "$home"
runs/reference.sh prepare "$collection"
for shard in "$MADE"/shards/shard-*.safetensors; do    # one shard a call, as it is carried
    mkdir -p "$home/carried/shards"
    rm -f "$home"/carried/shards/*
    cp "$shard" "$MADE/shards/shards.json" "$home/carried/shards/"
    MADE=$home/carried runs/reference.sh take
done

# Kill each stage once, as a lost connection would, then let calls of four minutes go on from what is there.
for stage in pnet vae decoder dit-first dit; do
    CALL_SECONDS=600 OUT=$home/parts setsid runs/reference.sh go "$minutes" >> "$home/log" 2>&1 &
    call=$!
    until ls "$THERE/run/$stage"/checkpoint-* >/dev/null 2>&1 || [ -f "$THERE/run/$stage/done.json" ] || ! kill -0 $call 2>/dev/null; do
        sleep 0.5
    done
    kill -9 -- -$call 2>/dev/null || true
    wait $call 2>/dev/null || true
    echo "killed in $stage: $(ls "$THERE/run/$stage" | tr '\n' ' ')"
done
for call in 1 2 3 4 5 6 7 8 9; do
    CALL_SECONDS=${CALL:-240} OUT=$home/parts runs/reference.sh go "$minutes" 2>&1 | tee -a "$home/log" | grep -E "plan:|rates|resumed|stopped|home:|reference:|passes|FAILS" || true
    tail -1 "$home/log" | grep -q "model is finished" && break
done
runs/reference.sh join "$home/parts" "$home/joined"
"$python" -m medisyn generate "chest X-ray with pneumonia" -n 2 --model "$home/joined/model" -o "$home/images"

# A second lease: a fresh machine takes shards and parts, and goes on from the moving average.
runs/reference.sh again "$home/parts"
export THERE=$home/there-again
runs/reference.sh take
CALL_SECONDS=600 OUT=$home/parts-again runs/reference.sh go 3 2>&1 | tee -a "$home/log" | grep -E "goes on|plan:|home:|reference:"
runs/reference.sh join "$home/parts-again" "$home/joined-again"
grep -q '"guided": [1-9]' "$home/joined/model/medisyn.json" && calls=one || calls=two
echo "rehearsed: $home/joined/model made $(ls "$home/images/images" | wc -l) images in $calls network calls a step"
