#!/usr/bin/env bash
# The evidence under bench/results, made anew on one GPU: tools/evidence.sh OUT [STAGE ...]
#
# Stages: checks (tests, sanitizer, verify, smoke, demo-fp16, demo-bf16, samples, side by side; each of them is a stage
# too), turbo-cases, turbo, turbo-rest, speed, batch-1, batch-8, batch-32, batch-32-30s, kernels, peers, soak; by default
# checks and all after it, in this order. From turbo-cases on nothing else should run on the GPU. Each command's log, exit
# code and seconds are kept in OUT, and JSON is written as it grows: an interrupted run keeps what it has. JOBS is how
# many tests run at once (default: 12). PY names the Python that has torch (default: python3); CUDA_VISIBLE_DEVICES
# chooses the GPU.
set -u
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1
shift
CHECKS="sanitizer verify smoke demo-fp16 demo-bf16 samples tests"
REST="turbo-cases turbo turbo-rest speed batch-1 batch-8 batch-32 batch-32-30s kernels peers soak"
UP_TO_15_S=("en 5 s" "ko short" "en short" "zh short" "en 15 s" "clone 5 s" "design 5 s")
[ $# -gt 0 ] || set -- checks $REST
for stage; do
    case " checks $CHECKS $REST " in
        *" ${stage// /_} "*) ;;
        *) echo "unknown stage $stage: see the head of $0" >&2; exit 2 ;;
    esac
done
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

# check NAME: one of CHECKS
check() {
    local dtype=${1#demo-}
    case $1 in
        tests) PYTEST_ADDOPTS="-p no:benchmark" run tests "$py" -m pytest -q -n "${JOBS:-12}" --results="$out/test-gpu.json" ;;
        verify) run verify "$py" -m omnivoice_triton verify --progress none --json "$out/verify.json" \
            --html "$out/verify.html" ;;
        sanitizer) run sanitizer "$py" -m omnivoice_triton.verify.sanitize --jobs "${JOBS:-12}" --json "$out/sanitizer.json" ;;
        smoke) run smoke "$py" -m omnivoice_triton.verify.smoke --json "$out/smoke.json" ;;
        demo-*) run "demo-$dtype" "$py" -m omnivoice_triton verify --tier 2,3 --model demo --dtypes "$dtype" \
            --dtype "$dtype" --sentences "${SENTENCES:-60}" --progress none --json "$out/demo-$dtype.json" ;;
        samples) run samples "$py" -m omnivoice_triton samples --out "$out/audio_samples" ;;
    esac
}

checks() {
    local pids=() pid name
    for name in $CHECKS; do check "$name" & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
}

# each_dtype NAME FILE MODULE ...: a run and a file for fp16, and one for bf16 with that in its name
each_dtype() {
    local name=$1 file=$2 good=0
    shift 2
    run "$name" "$py" -m "$@" --dtypes fp16 --json "$out/$file.json" || good=1
    run "$name-bf16" "$py" -m "$@" --dtypes bf16 --json "$out/$file-bf16.json" || good=1
    return "$good"
}

# batch SIZE RUNS STAGE ...: every mode on all cases, or on those of --cases, within BUDGET_S seconds a dtype
batch() {
    local size=$1 runs=$2 stage=$3
    shift 3
    each_dtype "$stage" "speed-$stage" omnivoice_triton.bench.speed --batch "$size" --runs "$runs" --no-memory \
        --budget-s "${BUDGET_S:-800}" "$@"
}

for stage; do
    case $stage in
        checks) checks ;;
        turbo-cases) run turbo-cases "$py" -m omnivoice_triton.bench.turbo cases --runs 9 --json "$out/turbo-cases.json" ;;
        turbo) run turbo "$py" -m omnivoice_triton.bench.turbo lengths throughput --runs 9 --json "$out/turbo.json" ;;
        turbo-rest) run turbo-rest "$py" -m omnivoice_triton.bench.turbo startup memory options --runs 9 \
            --json "$out/turbo-rest.json" ;;
        speed) run speed "$py" -m omnivoice_triton.bench.speed --only-5s --json "$out/speed.json" ;;
        batch-1) batch 1 5 batch-1 ;;
        batch-8) batch 8 5 batch-8 ;;
        batch-32) batch 32 3 batch-32 --cases "${UP_TO_15_S[@]}" ;;
        batch-32-30s) batch 32 3 batch-32-30s --cases "en 30 s" ;;
        kernels) each_dtype kernels kernels omnivoice_triton.bench.kernels ;;
        peers) run peers "$py" -m omnivoice_triton.bench.peers ${OLD_PACKAGE:+--old-package "$OLD_PACKAGE"} \
            --budget-s 420 --json "$out/peers.json" ;;
        soak) run soak "$py" -m omnivoice_triton.bench.soak --json "$out/soak.json" ;;
        *) check "$stage" ;;
    esac || failed=1
done
exit "$failed"
