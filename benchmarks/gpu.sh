#!/usr/bin/env bash
# The checks that want a GPU, in parts of less than ten minutes each, for a machine that is lent for a while.
#
#     benchmarks/gpu.sh pack [NAME...]     before, where the data is: packs ZEUXIS_DATA, or these parts of it, into
#                                          gpu-data.tar (PACKED), which lies in the checkout and travels with it
#     benchmarks/gpu.sh PART...            these parts, by name or number; `all` for all of them
#
#     1 capture    recorded steps equal uncaptured ones; a whole training that records
#     2 speed      images a second of five recipes: ours, a plain PyTorch loop, and one with torch.compile
#     3 speed-2    the same for five more
#     4 trace      profiles of four trainings; fails if a step inside an epoch waits for the GPU
#     5 memory     the most memory of ten trainings, plain and recorded
#     6 pair       two processes train as one: over NCCL where there are two GPUs
#     7 gallery    nine minutes of the queue at full budgets (`make gallery`); again goes on
#
# Only the gallery wants the packed data; the rest trains on the digits. OUT is the folder for what is measured
# (default: gpu), PYTHON the interpreter, DEVICE=cpu tries the commands without a GPU, and QUICK=1 with tiny budgets.
set -euo pipefail
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda} QUICK=${QUICK:-} OUT=$(realpath -m "${OUT:-gpu}") PACKED=$(realpath -m "${PACKED:-gpu-data.tar}")
[ -n "${PYTHON:-}" ] || PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
mapfile -t PARTS < <(sed -n 's/^#     [0-9] \([^ ]*\).*/\1/p' benchmarks/gpu.sh)  # the list above is the only one
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# choose FULL TINY: the second where QUICK is set.
choose() { if [ -n "$QUICK" ]; then echo "$2"; else echo "$1"; fi; }

pack() {
  tar -C "${ZEUXIS_DATA:?names the data directory}" -cf "$PACKED" "${@:-.}"
  du -h "$PACKED"
}

unpack() {
  [ -z "${ZEUXIS_DATA:-}" ] || return 0
  export ZEUXIS_DATA="$OUT/data"
  mkdir -p "$ZEUXIS_DATA"
  [ ! -f "$PACKED" ] || tar -C "$ZEUXIS_DATA" -xf "$PACKED"
}

capture() {
  "$PYTHON" -m pytest -q tests/test_capture.py -k "$(choose 'captured or gpu or recorded' 'captured and digits-vae')"
  "$PYTHON" -m zeuxis train mnist-gan --data digits --device "$DEVICE" --steps "$(choose 2000 3)" \
    --set training.capture="$([ "$DEVICE" = cuda ] && echo true || echo false)" --runs "$OUT/runs"
}

# compared RECIPE...: all of them with torch.compile as well; where QUICK is set, the first without its minutes.
compared() {
  local recipes=("${@/#/--recipe=}")
  "$PYTHON" -m benchmarks --device "$DEVICE" --digits --out "$OUT" --seconds "$(choose 3 0.05)" --peer torch \
    "${recipes[@]:0:$(choose $# 1)}" $(choose "--peer torch-compiled" "")
}
speed() { compared digits-vae mnist-gan mnist-cgan faces-gan-64 faces-dcgan-64; }
speed-2() { compared digits-gan mnist-vae-z2 digits-cgan mnist-vae-z16 mnist-dcgan; }

measured() { "$PYTHON" -m benchmarks.gpu "$1" ${QUICK:+digits-vae} "${@:2}" --device "$DEVICE" --out "$OUT"; }
trace() { measured trace --steps "$(choose 40 2)"; }
memory() { measured memory --steps "$(choose 20 1)"; }

pair() {
  if [ "$DEVICE" = cuda ] && [ "$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')" -lt 2 ]; then
    echo "pair: this machine has no two GPUs, so nothing is trained over NCCL."
    return
  fi
  [ -n "$QUICK" ] || "$PYTHON" -m pytest -q tests/test_distributed.py -k two_processes
  "$PYTHON" -m zeuxis train mnist-gan --data digits --device "$DEVICE" --steps "$(choose 2000 3)" --processes 2 \
    --runs "$OUT/runs"
}

gallery() {
  unpack
  export ZEUXIS_GALLERY="$OUT/gallery"
  # In a session of its own, as the queue lowers the priority of its whole session. Only the queue is interrupted: it
  # stops its trainings itself, and a second signal would end them unsaved.
  setsid --wait timeout --foreground --signal INT --kill-after "$(choose 45 100)" "$(choose 540 20)" \
    "$PYTHON" -m benchmarks.documents.gallery --queue ${QUICK:+digits-vae} || [ $? = 124 ]
  "$PYTHON" -m benchmarks.documents.gallery --state
}

if [ "${1:-}" = pack ]; then
  shift
  pack "$@"
  exit
fi
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' benchmarks/gpu.sh; exit 2; }
[ "$1" != all ] || set -- "${PARTS[@]}"
chosen=()
for part in "$@"; do
  [[ ! $part =~ ^[1-7]$ ]] || part=${PARTS[part - 1]}
  [[ " ${PARTS[*]} " == *" $part "* ]] || { echo "There is no part '$part'; the parts are ${PARTS[*]}." >&2; exit 2; }
  chosen+=("$part")
done
mkdir -p "$OUT"
for part in "${chosen[@]}"; do
  echo "== $part"
  "$part"
done
