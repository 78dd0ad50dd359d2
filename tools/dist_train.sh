#!/usr/bin/env bash
# Train on several GPUs, or in several processes on a machine without one.
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Over several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same on each but for NODE_RANK.
# SIGTERM, SIGUSR1, SIGHUP and Ctrl-C make the run write a checkpoint and end with status 75; a second Ctrl-C ends it at once.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# torchrun kills its processes 30 s after a signal and forgets their status. So it gets none: it runs in a process group
# of its own (set -m), this script passes signals on to the processes, and a file says that they were preempted.
MMMAP_PREEMPTED_FILE=$(mktemp)
export MMMAP_PREEMPTED_FILE
trap 'rm -f "$MMMAP_PREEMPTED_FILE"' EXIT
set -m
(
    # Ignored until train.py handles it: torchrun would die of it.
    trap '' USR1
    PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" "$TOOLS/torchrun.py" \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$GPUS" \
        "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
) &
TORCHRUN=$!
set +m

pass_on() {
    local processes
    processes=$(cat /proc/"$TORCHRUN"/task/*/children 2>/dev/null || pgrep -P "$TORCHRUN" || true)
    # One may have ended meanwhile.
    # shellcheck disable=SC2086
    [ -z "$processes" ] || kill -s "$1" $processes 2>/dev/null || true
}
STOP=
INTERRUPTS=0
trap 'STOP=1; pass_on USR1' TERM USR1 HUP
trap 'STOP=1; INTERRUPTS=$((INTERRUPTS + 1)); if [ $INTERRUPTS -gt 1 ]; then pass_on KILL; else pass_on USR1; fi' INT

# Repeated, because a process that has just started does not handle the signal yet, and because a process that a signal
# of its own ended before the training leaves others that wait for it.
while kill -0 "$TORCHRUN" 2>/dev/null; do
    if [ -n "$STOP" ] || [ -s "$MMMAP_PREEMPTED_FILE" ]; then pass_on USR1; fi
    sleep 0.5 || true
done
STATUS=0
wait "$TORCHRUN" || STATUS=$?
[ ! -s "$MMMAP_PREEMPTED_FILE" ] || STATUS=75
exit "$STATUS"
