#!/usr/bin/env bash
# From a source to judged boxes, each job when the one before has succeeded:
#   deploy/slurm/chain.sh SOURCE BOX REALIZATIONS [OPTIONS OF bigbox paint]
# ingest, haloes, an array of realizations, validate of each. Run it where you can sbatch; it prints
# the numbers of the jobs. SBATCH_ACCOUNT, SBATCH_PARTITION and the like go to all of them; PAINT, HALO
# and ONE hold more options of sbatch for the painting, the haloes and the rest, INGEST those of bigbox
# ingest, as in
#   INGEST="--grid 2048" PAINT="--nodes=4" deploy/slurm/chain.sh snapdir_099 box.zarr 10 --seed 1
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
source=$1 box=$2 last=$(($3 - 1))
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export BIGBOX_DEPLOY=${BIGBOX_DEPLOY:-$(dirname "$here")}
read -ra ingest_options <<< "${INGEST:-}"
read -ra one <<< "${ONE:-}"
read -ra halo <<< "${HALO:-${PAINT:-}}"
read -ra paint <<< "${PAINT:-}"
after() { printf -- '--dependency=afterok:%s' "$1"; }

ingest=$(sbatch --parsable "${one[@]}" "$here/one.sh" ingest "$source" "$box" \
    "${ingest_options[@]}")
haloes=$(sbatch --parsable "$(after "$ingest")" "${halo[@]}" "$here/cpu.sh" "$box" --haloes-only "$@")
tb=$(sbatch --parsable "$(after "$haloes")" "${paint[@]}" --array="0-$last" \
    "$here/realizations.sh" "$box" "$@")
# aftercorr: a task of this array follows the task of that one with its number.
validate=$(sbatch --parsable --dependency="aftercorr:$tb" "${one[@]}" --array="0-$last" \
    "$here/validate.sh" "$box")
echo "ingest $ingest, haloes $haloes, realizations $tb, validate $validate"
