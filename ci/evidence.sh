#!/usr/bin/env bash
# Everything that only a card can tell, on a machine with one large card (H200): ci/evidence.sh [STEP ...]
# Each step takes at most 10 minutes; without names all of them run, and what failed is listed at the end.
#   PYTHON     interpreter with the packages of pyproject.toml and a CUDA build of torch (.venv/bin/python)
#   REPORT     folder of records (report/evidence)
#   DRY_RUN=1  print the commands, run nothing
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
report=${REPORT:-report/evidence}
own_tier=(--tiers=ci/evidence_tiers.toml suites/tiers/test_added_tiers.py)
steps=(cuda gpu1x80 gpu4x24 gpu5x24 remedies1 remedies4 gpu1x141 predict compare
    speed_bf16 speed_bf16_compiled speed_fp8 speed_fp8_compiled baselines)

run() {
    if [[ -n ${DRY_RUN:-} ]]; then
        printf '%s\n' "$*"
    else
        timeout --kill-after=10 600 "$@"
    fi
}
tier() { run "$python" -m pytest --report-dir="$report" --baseline-compare=off "$@"; }

cuda() {
    run "$python" -m pytest tests -m cuda
}
gpu1x80() { tier --hardware=partitioned suites/tiers/test_gpu1x80.py; }
gpu4x24() { tier --hardware=partitioned suites/tiers/test_gpu4x24.py; }
gpu5x24() { tier --hardware=partitioned suites/tiers/test_gpu5x24.py; }
remedies1() { tier --hardware=partitioned suites/tiers/test_remedies_1x24.py suites/tiers/test_remedies_1x48.py; }
remedies4() { tier --hardware=partitioned suites/tiers/test_remedies_4x24.py; }
gpu1x141() { tier --hardware=physical --require-hardware -m gpu1x141 "${own_tier[@]}"; }
predict() { tier --hardware=simulated -n 4 suites "${own_tier[@]}"; }
compare() { run "$python" -m ci.evidence_compare --report-dir="$report"; }
speed_bf16() { run "$python" -m ci.evidence_speed --recipe=single; }
speed_bf16_compiled() { run "$python" -m ci.evidence_speed --recipe=single --compile; }
speed_fp8() { run "$python" -m ci.evidence_speed --recipe=fp8; }
speed_fp8_compiled() { run "$python" -m ci.evidence_speed --recipe=fp8 --compile; }
baselines() { run "$python" -m pytest --report-dir="$report" --hardware=physical --baseline-update-new-only -m gpu1x141 "${own_tier[@]}"; }

failed=()
for step in "${@:-${steps[@]}}"; do
    if [[ " ${steps[*]} " != *" $step "* ]]; then
        printf 'no step %s\nnext: give some of: %s\n' "$step" "${steps[*]}" >&2
        exit 2
    fi
    printf '== %s\n' "$step"
    "$step" || failed+=("$step")
done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
