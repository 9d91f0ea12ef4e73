#!/usr/bin/env bash
# Any other command of bigbox, on one node without ranks:   sbatch deploy/slurm/one.sh ingest SOURCE BOX
#SBATCH --job-name=bigbox-one
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
bigbox_run "$@"
