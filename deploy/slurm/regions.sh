#!/usr/bin/env bash
# A box in small jobs, one slab of it each, which find a place where a large one does not:
#   SLABS=8 sbatch --array=0-7%1 deploy/slurm/regions.sh BOX VOXELS [OPTIONS OF bigbox paint]
# VOXELS: of dm on the first axis, cut into SLABS parts. A box has one run at a time, hence %1; without
# it a task that finds another at work goes into the queue again (exit status 75), and nothing is lost.
#SBATCH --job-name=bigbox-regions
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@180
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=job.sh
source "${BIGBOX_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}/slurm/job.sh"
box=$1 voxels=$2
shift 2
slab=${SLURM_ARRAY_TASK_ID:?submit with --array} slabs=${SLABS:?into how many parts}
region=$((voxels * slab / slabs)):$((voxels * (slab + 1) / slabs)),0:$voxels,0:$voxels

bigbox_run paint "$box" --region "$region" "$@" --quiet
