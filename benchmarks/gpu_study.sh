#!/usr/bin/env bash
# The paper's protocol on one GPU: every recipe of profile `paper`, several runs side by side.
#
#   python benchmarks/pack_images.py pbc/splits.csv --out packed      # once; 19 MB, to be sent there
#   benchmarks/gpu_study.sh packed results.tar 420
#   mkdir -p runs/gpu && tar -C runs/gpu -xf results.tar && hemascope study report runs/gpu --out docs
#
# It stops by itself before the limit (seconds). results.tar holds what `study report` reads of the
# runs that are finished; a run that is not can be added later, by the same command into another
# archive. HEMASCOPE is the command (default: hemascope), FOLDER where the runs go (default: a new
# one), AT_ONCE how many runs share the GPU (default: 4), OPTIONS further options of `study run`.
set -euo pipefail
packed=$1 archive=$2 limit=$3
started=$SECONDS
folder=${FOLDER:-$(mktemp -d)}
export HEMASCOPE_CACHE=${HEMASCOPE_CACHE:-$folder/cache} OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
# shellcheck disable=SC2086  # HEMASCOPE and OPTIONS are several words
${HEMASCOPE:-hemascope} study run "$packed/splits.csv" --out "$folder/study" --profile paper \
    --at-once "${AT_ONCE:-4}" --stop-after $((limit - (SECONDS - started) - 10)) ${OPTIONS:-} || true
cd "$folder/study"
find . -name result.json | while read -r result; do
    echo "$result"
    echo "$(dirname "$result")/metrics.csv"
done | tar -cf "$OLDPWD/archive.tmp" -T - study.json
cd - > /dev/null
mv archive.tmp "$archive"
tar -tf "$archive" | grep -c result.json
