#!/usr/bin/env bash
# The public datasets under permissive licences that the models that ship have seen, as one collection. It resumes where it stopped.
#
#   runs/open.sh DATASETS [COLLECTION]
#
# DATASETS holds one folder a dataset, named as `medisyn sources` names it, each in its own original layout.
set -euo pipefail
cd "$(dirname "$0")/.."
datasets=${1:?usage: runs/open.sh DATASETS [COLLECTION]}
collection=${2:-data/open}
for source in kermany_cxr covid_cxr_open knee_oa_xray brain_tumor_mri open_ms_mri busi mini_mias lc25000 \
              pbc_blood bccd isic2017 pad_ufes_20 vocal_folds laparoscopy idrid chasedb1; do
    "${PYTHON:-.venv/bin/python}" -m medisyn ingest "$source" "$datasets/$source" -o "$collection"
done
"${PYTHON:-.venv/bin/python}" -m medisyn check "$collection"
