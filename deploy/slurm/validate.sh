#!/usr/bin/env bash
# The page of `bigbox validate` for each realization:   sbatch --array=0-9 deploy/slurm/validate.sh BOX
# A box that fails (exit status 3) fails its task.
#SBATCH --job-name=bigbox-validate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=job.sh
source "${BIGBOX_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}/slurm/job.sh"

BIGBOX_LAUNCH=''
bigbox_run validate "$@" --realization "${SLURM_ARRAY_TASK_ID:-0}"
