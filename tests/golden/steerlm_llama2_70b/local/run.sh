#!/bin/bash
# Run steerlm-llama2-70b on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/steerlm-llama2-70b}
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
    if ((processes == 0)); then # it has no model: one plain process
      exec env "${environment[@]}" SPECC_ATTEMPT="$number" \
        python3 -m runtime "$run/plan.json" "$job" "$role"
    fi
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

environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage oasst aceeca21c62f403f7827fa2ea7e13bfa273c566b5a720aa0ab4ac929015620f2 0 29500 oasst clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage oasst-validation 05ad5fb5ac9fec7c734f2616369dd7ded8f83d9b764aad68203090d76be1e151 0 29500 oasst-validation clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage helpsteer cf93d5de500baf7d23c085c6e57ae288e21233278318e4998e93e3216c0bbf2d 0 29500 helpsteer clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage helpsteer-validation ca477fdd4c76732f4a3cd3991d3f6a914775b60529cd31f1c344a619709242a6 0 29500 helpsteer-validation clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage merged 5eb895cecccff21218bbfbf354ffbfab7bd6060d2caa9ee2314d43dc7bf185af 0 29500 merged clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage merged-validation f7701ebb6836281b5bd2e843773f7841aba624774c482401ab29ea261c050c90 0 29500 merged-validation clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage steerlm-marks c0d913033bed3e19c8dd5771e454992c8e46ffc2804358d2cc93304f6e802cac 0 29500 steerlm-marks clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage steerlm-marks-validation 2c390213d1484a86cad976c1030fa57d038306500f135c4a359c1e0b689edf88 0 29500 steerlm-marks-validation clerk
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage steerlm-reward 8ddd962de03e0f2dc9a23d4945d055c8a79e9d6c352b9765ef5cdaca04fdd833 256 29500 steerlm-reward model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage steerlm-annotate f2f6afd9936509b4262c4324779a6cceab1deba0ee6dcb208a4152c43e891774 8 29500 steerlm-annotate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage steerlm-annotate-validation c4aa2e8cd33ccda0350e5dc317bebaae79a1cdb5362155f8f79ce0345e06a9e1 8 29500 steerlm-annotate-validation model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage steerlm-train 6efbaf7714c43f2e542500892d30b0d4aeb791dc1697a2367c843379a46c29a3 256 29500 steerlm-train model
