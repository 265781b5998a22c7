#!/usr/bin/env bash
# MediSyn-S, the reference model, on one lent GPU, in commands of at most ten minutes; docs/training.md, "On a GPU", tells it by call.
#
#   runs/reference.sh prepare [COLLECTION]   here: text encoder or TEXT=RUN/text, captions, shards -> out/reference/
#   runs/reference.sh take                   there, once a shard (or pair of parts): keep what was carried
#   runs/reference.sh go [MINUTES]           there, again until it says "the model is finished"; parts in $OUT
#   runs/reference.sh join PARTS [RUN]       here: the parts of the last call          -> RUN/model, a model folder
#   runs/reference.sh again PARTS            here: lay out what came home, for the next `go` to begin from (a second half hour)
#   runs/reference.sh rehearse [FOLDER]      all of it on this CPU at toy size, with a kill in every stage: minutes
set -euo pipefail
cd "$(dirname "$0")/.."
verb=${1:?$(sed -n '4,9s/^# *//p' "$0")}
recipe=${RECIPE:-recipes/medisyn-s.toml}
made=${MADE:-out/reference}                   # what is carried: an ignored folder
there=${THERE:-/tmp/medisyn}                  # on the machine that trains
export PYTHONPATH=$there/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=$there/inductor
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
reference() { "$python" runs/reference.py "$@" ${SET:-}; }   # SET="--set dit.depth=2 ..." changes the recipe

case $verb in
prepare)
    collection=${2:-data/open}
    export OMP_NUM_THREADS=1
    mkdir -p "$made"
    [ -n "${TEXT:-}" ] || reference text "$recipe" "$made/text-run" "$collection"
    mkdir -p "$made/run/text"
    cp "${TEXT:-$made/text-run/text}"/{network.safetensors,done.json,tokenizer.json,facts.json} "$made/run/text/"
    reference pack "$collection" "$made/shards" --mib "${SHARD_MIB:-34}" --side "${SIDE:-256}" ${LIMIT:+--limit $LIMIT}
    reference captions "$recipe" "$made/run" "$made/shards"
    if [ -z "${NO_WHEELS:-}" ]; then          # the one thing that a bare PyTorch image lacks
        "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$made/wheels" \
            pydantic==2.14.3 "$("$python" -c 'import pydantic_core; print("pydantic-core==" + pydantic_core.__version__)')" \
            annotated-types typing-inspection typing-extensions
    fi
    du -sh "$made/run" "$made/shards" "$made"/shards/*.safetensors
    ;;
take)
    for kind in shards parts; do
        mkdir -p "$there/$kind"
        [ ! -d "$made/$kind" ] || cp -v "$made/$kind"/*.json "$made/$kind"/[sp]*-[0-9]* "$there/$kind/"
    done
    ;;
go)
    mkdir -p "$there/run"
    cp -rn "$made/run/." "$there/run/" 2>/dev/null || true
    if [ -d "$made/wheels" ] && ! "$python" -c 'import pydantic' 2>/dev/null; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$there/site" "$made"/wheels/*.whl
    fi
    if [ -f "$there/parts/parts.json" ] && [ ! -f "$there/adopted" ]; then
        reference join "$there/parts" "$there/before"
        reference adopt "$there/before" "$there/run"
        touch "$there/adopted"
    fi
    reference unpack "$recipe" "$there/shards" "$there/run" ${FEWER:+--fewer}
    reference go "$recipe" "$there/run" --minutes "${2:-22}" --call-seconds "${CALL_SECONDS:-540}" --home "${OUT:-$made/home}" \
        --steps "${STEPS:-24}"
    ;;
join)
    reference join "${2:?the folder of the parts}" "${3:-out/medisyn-s}"
    ;;
again)
    mkdir -p "$made/parts"
    rm -f "$made"/parts/part-* "$made/parts/parts.json"
    cp -v "${2:?the folder of the parts}"/part* "$made/parts/"
    ;;
rehearse)
    runs/rehearsal.sh "${2:-out/rehearsal}"
    ;;
*)
    sed -n '2,10s/^# *//p' "$0"
    exit 2
    ;;
esac
