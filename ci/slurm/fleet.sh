#!/usr/bin/env bash
# Every tier on every kind of machine, then one page of all: ci/slurm/fleet.sh "SBATCH OPTIONS: TIER TIER ..." ...
#
#   ci/slurm/fleet.sh "--constraint=rtx4090 --gpus-per-node=5: gpu1x24 gpu4x24 gpu5x24" \
#       "--constraint=a100 --gpus-per-node=1: gpu1x80"
#
# The page is REPORT/fleet.html (report/fleet.html), written when the last task has ended, however it ended.
# Variables as for tiers.sbatch.
set -euo pipefail

[ $# -gt 0 ] || { echo 'usage: fleet.sh "SBATCH OPTIONS: TIER TIER ..." ...' >&2; exit 2; }
report=${REPORT:-report}
jobs=()
for kind in "$@"; do
    read -ra options <<<"${kind%%:*}"
    read -ra tiers <<<"${kind#*:}"
    [ ${#tiers[@]} -gt 0 ] || { echo "no tiers behind the colon: $kind" >&2; exit 2; }
    jobs+=("$(sbatch --parsable --array="0-$((${#tiers[@]} - 1))" "${options[@]}" ci/slurm/tiers.sbatch "${tiers[@]}")")
done
after=$(IFS=:; echo "${jobs[*]%%;*}")
folders=("${jobs[@]%%;*}")
sbatch --parsable --job-name=liveavatar-fleet --dependency="afterany:$after" --wrap \
    ".venv/bin/python -m suites.harness.report.fleet $(printf "$report/*.%s " "${folders[@]}")--html $report/fleet.html ${TIERS:+--tiers $TIERS}"
