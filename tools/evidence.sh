#!/usr/bin/env bash
# The evidence under bench/results, made anew on one GPU: tools/evidence.sh OUT [STAGE ...]
#
# Stages: checks (tests, sanitizer, verify; side by side), demo (verify of the demo voice), turbo, speed, batch, kernels,
# peers, soak, samples; by default all, in this order. From turbo on nothing else should run on the GPU. Each command's
# log, exit code and seconds are kept in OUT, and JSON is written as it grows: an interrupted run keeps what it has.
# PY names the Python that has torch (default: python3); CUDA_VISIBLE_DEVICES chooses the GPU.
set -u
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1
shift
[ $# -gt 0 ] || set -- checks demo turbo speed batch kernels peers soak samples
py=${PY:-python3}
mkdir -p "$out" || exit 2
failed=0

run() {
    local name=$1 start=$SECONDS code
    shift
    "$@" >"$out/$name.log" 2>&1
    code=$?
    printf '%-10s exit %d, %d s\n' "$name" "$code" "$((SECONDS - start))" | tee -a "$out/summary.txt"
    return "$code"
}

checks() {
    local pids=() pid
    run sanitizer "$py" -m omnivoice_triton.verify.sanitize --jobs 12 --json "$out/sanitizer.json" & pids+=($!)
    run tests "$py" -m pytest -q -n "${JOBS:-12}" --results "$out/test-gpu.json" & pids+=($!)
    run verify "$py" -m omnivoice_triton verify --progress none --json "$out/verify.json" --html "$out/verify.html" &
    pids+=($!)
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
}

for stage; do
    case $stage in
        checks) checks ;;
        demo) run demo "$py" -m omnivoice_triton verify --tier 2,3 --model demo --dtype fp16,bf16 --progress none \
            --json "$out/demo_voice_modes.json" ;;
        turbo) run turbo "$py" -m omnivoice_triton.bench.turbo all --runs 9 --json "$out/turbo.json" ;;
        speed) run speed "$py" -m omnivoice_triton.bench.speed --only-5s --json "$out/speed.json" ;;
        batch) run batch "$py" -m omnivoice_triton.bench.speed --batch 1 8 32 --dtypes fp16 --no-memory \
            --budget-s "${BUDGET_S:-420}" --json "$out/speed-batch.json" ;;
        kernels) run kernels "$py" -m omnivoice_triton.bench.kernels --budget-s "${KERNELS_S:-200}" \
            --json "$out/kernels.json" ;;
        peers) run peers "$py" -m omnivoice_triton.bench.peers ${OLD_PACKAGE:+--old-package "$OLD_PACKAGE"} \
            --budget-s 240 --json "$out/peers.json" ;;
        soak) run soak "$py" -m omnivoice_triton.bench.soak --json "$out/soak.json" ;;
        samples) run samples "$py" -m omnivoice_triton samples --out "$out/audio_samples" ;;
        *) echo "unknown stage $stage: see the head of $0" >&2; exit 2 ;;
    esac || failed=1
done
exit "$failed"
