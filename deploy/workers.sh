#!/usr/bin/env bash
# Paint a box on workers of a Slurm cluster that join, leave and die: deploy/docs/workers.md.
#   WORKERS=20 SBATCH_ARGS="--partition=scavenge --requeue -c 4 --mem=16G" \
#     deploy/workers.sh BOX [options of bigbox paint]
# Without a Slurm that answers the workers are processes of this machine.
set -euo pipefail
box=${1:?usage: deploy/workers.sh BOX [options of bigbox paint]}
workers=${WORKERS:-4}
state=$(mktemp -d "${TMPDIR:-$PWD}/bigbox-workers.XXXXXX")  # seen by all nodes
export DASK_TEMPORARY_DIRECTORY=$state
trap 'kill $(jobs -p) 2> /dev/null || true; [ -z "${job:-}" ] || scancel "$job"; rm -rf "$state"' EXIT

dask scheduler --port 0 --no-dashboard \
    --scheduler-file "$state/scheduler.json" > "$state/scheduler.log" 2>&1 &
until [ -s "$state/scheduler.json" ]; do sleep 0.2; done
address=$(python -c "import json,sys; print(json.load(open(sys.argv[1]))['address'])" "$state/scheduler.json")

# One region at a time on each worker; more workers may join from anywhere with this very command.
worker=("$(command -v dask)" worker "$address" --nthreads 1 --no-dashboard --death-timeout 600
        --local-directory "$state" --memory-limit 0)
if sinfo > /dev/null 2>&1; then
    job=$(sbatch --parsable --array="1-$workers" --job-name=bigbox-worker ${SBATCH_ARGS:-} \
        --wrap="exec $(printf '%q ' "${worker[@]}")")
else
    for _ in $(seq "$workers"); do "${worker[@]}" > /dev/null 2>&1 & done
fi
bigbox paint "$box" "${@:2}" --workers "$address"
