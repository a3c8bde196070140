#!/usr/bin/env bash
# Everything that only a card can tell, on a machine with one large card (H200): ci/evidence.sh [STEP ...]
# Each step is complete in itself and takes at most 8 minutes; the most telling come first. Without names those run that
# have not passed yet at this commit; named ones always run. What failed is listed at the end.
#   PYTHON      interpreter with the packages of pyproject.toml and a CUDA build of torch (.venv/bin/python)
#   REPORT      folder of records, and of what has passed (report/evidence)
#   DRY_RUN=1   print the commands, run nothing
#   REHEARSE=1  run a stand-in for each step on a machine without a card: small models, the CPU, simulations
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
report=${REPORT:-report/evidence}
seconds=480
own_tier=(--tiers=ci/evidence_tiers.toml suites/tiers/test_added_tiers.py)
tiers=suites/tiers
steps=(cuda
    gpu1x80 gpu1x141_single
    remedy1_fp8 remedy1_blocks remedy1_blocks_fp8 remedy1_blocks_int8 remedy1x48_fp8
    gpu4x24 gpu5x24
    speed_bf16 speed_fp8 speed_bf16_compiled speed_fp8_compiled
    gpu1x141_fp8
    remedy4_bf16 remedy4_freed remedy4_host remedy4_decode_rank remedy4_fp8
    baselines predict compare)

run() {
    if [[ -n ${DRY_RUN:-} ]]; then
        printf '%s\n' "$*"
    else
        timeout --kill-after=10 "$seconds" "$@"
    fi
}
tier() {
    local hardware=$1
    shift
    if [[ -n ${REHEARSE:-} ]]; then
        [[ $hardware == partitioned ]] && hardware=miniature
        [[ $hardware == physical ]] && hardware=simulated
    fi
    run "$python" -m pytest --report-dir="$report" --baseline-compare=off --hardware="$hardware" "$@"
}
on_the_card() { tier partitioned "$tiers/$1::$2"; }
speed() { run "$python" -m ci.evidence_speed ${REHEARSE:+--rehearse} "$@"; }

cuda() { run env ${REHEARSE:+LIVE_AVATAR_CARD=cpu} "$python" -m pytest tests/cuda -m cuda; }
gpu1x80() { on_the_card test_gpu1x80.py test_single_fits; }
gpu1x141_single() { tier physical -m gpu1x141 -k single "${own_tier[@]}"; }
gpu1x141_fp8() { tier physical -m gpu1x141 -k fp8 "${own_tier[@]}"; }
remedy1_fp8() { on_the_card test_remedies_1x24.py test_float8_weights_fit_beside_caches_in_host_memory; }
remedy1_blocks() { on_the_card test_remedies_1x24.py test_blocks_brought_over_one_ahead_fit_at_full_precision; }
remedy1_blocks_fp8() { on_the_card test_remedies_1x24.py test_blocks_in_float8_fit; }
remedy1_blocks_int8() { on_the_card test_remedies_1x24.py test_blocks_in_8_bit_integers_fit; }
remedy1x48_fp8() { on_the_card test_remedies_1x48.py test_float8_weights_and_caches_fit; }
gpu4x24() { tier partitioned $tiers/test_gpu4x24.py; }
gpu5x24() { on_the_card test_gpu5x24.py test_published_sharded_fits; }
speed_bf16() { speed --recipe=single; }
speed_fp8() { speed --recipe=fp8; }
speed_bf16_compiled() { speed --recipe=single --compile; }
speed_fp8_compiled() { speed --recipe=fp8 --compile; }
remedy4_bf16() { on_the_card test_remedies_4x24.py test_bfloat16_shards_fit; }
remedy4_freed() { on_the_card test_remedies_4x24.py test_encoders_given_up_after_use_make_room; }
remedy4_host() { on_the_card test_remedies_4x24.py test_the_text_encoder_in_host_memory_makes_room; }
remedy4_decode_rank() { on_the_card test_remedies_4x24.py test_the_decode_rank_has_room_for_the_text_encoder; }
remedy4_fp8() { on_the_card test_remedies_4x24.py test_float8_makes_gathering_unnecessary; }
predict() { tier simulated -n 4 $tiers "${own_tier[@]}"; }
compare() { [[ -n ${REHEARSE:-} ]] || run "$python" -m ci.evidence_compare --report-dir="$report"; }
baselines() {
    local kept=baselines hardware=physical
    if [[ -n ${REHEARSE:-} ]]; then
        kept=$report/baselines hardware=simulated
        mkdir -p "$kept"
    fi
    run "$python" -m pytest --report-dir="$report" --hardware=$hardware --baseline-dir="$kept" \
        --baseline-update-new-only -m gpu1x141 "${own_tier[@]}"
}

for step in "$@"; do
    if [[ " ${steps[*]} " != *" $step "* ]]; then
        printf 'no step %s\nnext: give some of: %s\n' "$step" "${steps[*]}" >&2
        exit 2
    fi
done

# What passed lies in a folder of its commit, so that a change of the code has everything run again.
passed=$report/passed/$(git rev-parse --short HEAD 2>/dev/null || echo none)${REHEARSE:+-rehearsed}
failed=()
for step in "${@:-${steps[@]}}"; do
    if (($# == 0)) && [[ -e $passed/$step && -z ${DRY_RUN:-} ]]; then
        printf '== %s has passed\n' "$step"
        continue
    fi
    printf '== %s\n' "$step"
    begun=$SECONDS
    if ! "$step"; then
        failed+=("$step")
    elif [[ -z ${DRY_RUN:-} ]]; then
        mkdir -p "$passed"
        printf '%s s\n' $((SECONDS - begun)) >"$passed/$step.part" && mv "$passed/$step.part" "$passed/$step"
    fi
done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
