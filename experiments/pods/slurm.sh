#!/usr/bin/env bash
# A run on GPUs under SLURM, one process a GPU: the same command again goes on.
#
#   sbatch --nodes 1 --time 4:00:00 experiments/pods/slurm.sh flowjax sweep models/llava-13b ...
#
# A job that is preempted is queued again and goes on where it was. Edit the numbers for machines
# with other than 8 GPUs, or give them to sbatch.
#SBATCH --job-name=flowjax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

[[ $# -ge 1 ]] || { echo "usage: sbatch $0 COMMAND.." >&2; exit 2; }

srun --kill-on-bad-exit=1 "$@"
