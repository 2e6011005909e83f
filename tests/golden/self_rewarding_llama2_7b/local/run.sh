#!/bin/bash
# Run self-rewarding-llama2-7b on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/self-rewarding-llama2-7b}
mkdir -p "$run" || exit 3
run=$(cd "$run" && pwd)
cp "$here/plan.json" "$run/.plan.json.new" && mv "$run/.plan.json.new" "$run/plan.json" || exit 3

secrets=(HF_TOKEN WANDB_API_KEY)
for name in "${secrets[@]}"; do
  if [[ -z ${!name-} ]]; then
    echo "error: \$$name is not set; export it and run again" >&2
    exit 3
  fi
done
in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ctrl-C and TERM ask the ranks to save and leave; torchrun itself does not listen to them.
stage=''
trap '[[ $stage ]] && echo "told to end" >"$stage/stop"' INT TERM

environment=() # what the plan sets for the stage that comes next

# run_stage STAGE HASH PROCESSES PORT JOB ROLE
run_stage() {
  local hash=$2 processes=$3 port=$4 job=$5 role=$6 number=1 code=0 logs
  stage=$run/$1
  if [[ $hash ]] && grep -qsF "\"$hash\"" "$stage/output.json"; then
    echo "stage $1 is finished already"
    return
  fi
  while [[ -e $stage/attempts/$number ]]; do number=$((number + 1)); done # older logs stay
  logs=$stage/attempts/$number
  mkdir -p "$logs" || exit 3
  rm -f "$stage/stop" "$stage/heartbeat"
  while in_use "$port"; do port=$((port + 1)); done
  echo "stage $1: attempt $number, logs in $logs"
  (
    trap '' INT TERM
    exec env "${environment[@]}" SPECC_ATTEMPT="$number" \
      python3 -m torch.distributed.run --nnodes=1 --nproc-per-node="$processes" \
      --node-rank=0 --rdzv-backend=static --rdzv-id="$1-$number" --master-addr=127.0.0.1 \
      --master-port="$port" --max-restarts=0 \
      --signals-to-handle=SIGHUP,SIGQUIT --shutdown-timeout=5 --log-dir="$logs/torchrun" \
      -m runtime "$run/plan.json" "$job" "$role"
  ) > >(trap "" INT TERM; exec tee "$logs/output.log") 2>&1 &
  local step=$!
  while kill -0 "$step" 2>/dev/null; do wait "$step"; done # a trapped signal ends `wait` early
  wait "$step"
  code=$?
  if ((code)); then
    echo "stage $1 failed with exit code $code" >&2
    exit "$code"
  fi
  if [[ ! -e $stage/output.json ]]; then
    echo "stage $1 is stopped and saved; run again to continue"
    exit 130
  fi
  echo "stage $1 is finished"
}

environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage self_rewarding-1 932731ee126f8f4fd8c1d106343db827c94fe39aa4d54da44e328ecfe18d540b 32 29500 self_rewarding-1 actor
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage self_rewarding-2 4d47d1fada4ebbb6f528808428a9b2b56af4c3299fb7cd2cf251f9dbbc54ab4f 32 29500 self_rewarding-2 actor
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage self_rewarding-3 d03d30e802ccf83f4b1329615f8d78f334cc782caef20c2f15ff415a0c96aca2 32 29500 self_rewarding-3 actor
