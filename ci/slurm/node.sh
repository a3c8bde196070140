#!/usr/bin/env bash
# One node's share of a job: ci/slurm/node.sh -m MODULE ARGUMENTS...
#   CARDS          ranks in all; the first nodes take one more where they do not divide
#   MEET           HOST:PORT of the rendezvous
#   SLURM_JOB_ID, SLURM_NNODES, SLURM_NODEID   as srun sets them
set -euo pipefail

share=$((CARDS / SLURM_NNODES + (SLURM_NODEID < CARDS % SLURM_NNODES)))
[ "$share" -gt 0 ] || { echo "$CARDS ranks do not need $SLURM_NNODES nodes" >&2; exit 2; }

exec .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$share" --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$MEET" --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-conf "is_host=$((SLURM_NODEID == 0)),join_timeout=300" \
    "$@"
