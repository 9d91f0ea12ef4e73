#!/usr/bin/env bash
# Paint a box on GPU nodes:   sbatch [-A ACCOUNT -p PARTITION ..] deploy/slurm/gpu.sh BOX [OPTIONS OF bigbox paint]
# One rank a GPU, which finds its own by its number on the node. Every rank must see all GPUs of its
# node: no --gpus-per-task, no --gpu-bind.
#SBATCH --job-name=bigbox
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@180
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=job.sh
source "${BIGBOX_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}/slurm/job.sh"
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$OMP_NUM_THREADS

bigbox_run paint "$@" --device cuda --quiet
