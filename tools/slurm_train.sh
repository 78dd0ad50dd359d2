#!/usr/bin/env bash
# Train on a Slurm cluster.
#   GPUS=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# Variables: GPUS (all together), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS (more options for srun).
# Two minutes before the time limit the run writes a checkpoint and ends with status 75. In a batch job, whose script asks
# for `#SBATCH --signal=USR1@120`, the job is then queued again and goes on from there.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
shift 3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    echo "Restart $SLURM_RESTART_COUNT of job $SLURM_JOB_ID: --resume" >&2
    set -- "$@" --resume
fi

STATUS=0
# SRUN_ARGS is a list of options: its words are meant to be split.
# shellcheck disable=SC2086
PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}" srun \
    --partition="$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    --signal=USR1@120 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$CONFIG" --launcher slurm "$@" || STATUS=$?

# A cancelled job does not come here: scancel ends this script too.
if [ "$STATUS" -eq 75 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID" || echo "Job $SLURM_JOB_ID cannot be requeued: start it again with --resume." >&2
fi
exit "$STATUS"
