#!/usr/bin/env bash
# Several T_b on the same haloes, side by side, one task of an array each:
#   sbatch --array=0-9 deploy/slurm/realizations.sh BOX [OPTIONS OF bigbox paint]
# All need the haloes: paint those first (chain.sh does). Where they are not there, the first task
# paints them and the others wait, which costs their time.
#SBATCH --job-name=bigbox-realizations
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@180
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=job.sh
source "${BIGBOX_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}/slurm/job.sh"

bigbox_run paint "$@" --realization "${SLURM_ARRAY_TASK_ID:?submit with --array}" --quiet
