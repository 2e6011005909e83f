#!/bin/bash
# Run steerlm-tiny on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/steerlm-tiny}
mkdir -p "$run" || exit 3
run=$(cd "$run" && pwd)
cp "$here/plan.json" "$run/.plan.json.new" && mv "$run/.plan.json.new" "$run/plan.json" || exit 3

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

environment=(PYTHONSAFEPATH=1)
run_stage judged f0d809710d612ebe8627457c2d4206904aea856d58170a9fa338c9a37a7c5964 0 29500 judged clerk
environment=(PYTHONSAFEPATH=1)
run_stage judged-validation 5c8841510a1e3d5eafede54747d4988a11011191b9ff447106d2e0d800956743 0 29500 judged-validation clerk
environment=(PYTHONSAFEPATH=1)
run_stage steerlm-marks 614582c05407d7bb2384110ed2e223e1580e61af2f0ae89c1d404deeeb57bf72 0 29500 steerlm-marks clerk
environment=(PYTHONSAFEPATH=1)
run_stage steerlm-marks-validation 0a54a43445e7da1ce2effbae49ff5709bc9d601c03617a2900cfe259f127c578 0 29500 steerlm-marks-validation clerk
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-reward 29282781fa354ce215591b2e208d362b426e4d49117b724b15fcecd904a334a7 2 29500 steerlm-reward model
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-annotate 37b4ec6b2b34a8782084b0df7b671cc3935d8313701a1e493ddfb4bdd3605d3c 2 29500 steerlm-annotate model
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-annotate-validation 1f450f1786c49c6af7d91cb16a24ca7762a3762d33a0d5464b2a13ffc669b6c1 2 29500 steerlm-annotate-validation model
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-train 295e6f31578d5f04498756bf9808a7e92d598f7376261f17d199ecfbe849838e 2 29500 steerlm-train model
environment=(PYTHONSAFEPATH=1)
run_stage steerlm-1-ask 4bfdaf08dd5bf62ca191e59d0ff97ef2dc055685b2845ed42e3c41836fbf950e 0 29500 steerlm-1-ask clerk
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-1-generate bbd012e75ef12f821768eb41056bc5fa891a199d1aeaaef9bf8504ce011e1da4 2 29500 steerlm-1-generate model
environment=(PYTHONSAFEPATH=1)
run_stage steerlm-1-answers 3fdb064dac8b9b741fed1f38e0110ba66c9791d6f4dd42eba58f0ce0f4da618d 0 29500 steerlm-1-answers clerk
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-1-annotate 6088b483524a87d633c5816379f09917f55721e3be3abc2061ed4c703a8d175b 2 29500 steerlm-1-annotate model
environment=(OMP_NUM_THREADS=1 PYTHONSAFEPATH=1)
run_stage steerlm-1-train 1708ac86b0dbf9ceafdfa9e669d46e29e708186066f20118b3f1b67002903195 2 29500 steerlm-1-train model
