#!/usr/bin/env bash
# Paint a box on CPU nodes:   sbatch [-A ACCOUNT -p PARTITION ..] deploy/slurm/cpu.sh BOX [OPTIONS OF bigbox paint]
# One rank a core, or a few with --cpus-per-task. Options of sbatch go before the script.
#SBATCH --job-name=bigbox
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=1
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Three minutes before the time is over: what is in work is finished and the job requeued.
#SBATCH --signal=B:USR2@180
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=job.sh
source "${BIGBOX_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}/slurm/job.sh"
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$OMP_NUM_THREADS  # since 22.05 srun does not take it from the job

bigbox_run paint "$@" --quiet
