#!/bin/bash
# Run ppo-hh on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/ppo-hh}
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

# Asked to stop: the first group looks for the file `stop` once a step, saves with the others, and leaves.
stopping='' stop_by=0
stop() {
  [[ $stopping ]] && return
  stopping=$1 stop_by=$((SECONDS + 3600))
  echo "$1: asking the ranks to save"
  echo "$1" >"$stage/stop"
}

# A group has ended: ended GROUP CODE. The first one's end is the job's, and servers leave after it. What
# asks a server fails when the server dies, and may be the faster to say so: the server is to blame.
ended() {
  local group=$1 by=$SECONDS other
  echo "$(date -u +%FT%TZ) group ${groups[group]} ended with exit code $2"
  [[ $killing ]] && return
  if (($2 == 0)); then
    if ((group == 0)); then
      finished=1 end_by=$((SECONDS + 10))
      : >"$logs/over"
    elif [[ ${serves[group]} && -z $finished ]]; then
      early=$group end_by=$((SECONDS + 3600)) # all were told to stop, or it broke
    fi
  elif [[ -z $failed || ($failed == 0 && ${serves[group]}) ]]; then
    [[ $finished && ${serves[group]} ]] && return # nobody needs it any more
    failed=$group code=$2
    if ((group == 0)); then
      for other in "${!step[@]}"; do
        ((other)) && [[ ${serves[other]} ]] && by=$((SECONDS + 10))
      done
      [[ $early ]] && failed=$early
    fi
    end_by=$by
  fi
}

# Wait until no group runs. Sets `code`, `finished` when the first one ended well, and `failed` to the group
# that is to blame. A hung rank is seen by the heartbeat that the first group renews each step. Its age is
# taken on this node's clock, from when a change was seen, so that clocks of nodes need not agree.
watch() {
  local beat='' last='' since=$SECONDS signal=HUP group end_by='' killing='' early=''
  failed='' finished='' code=0
  while [[ ${step[*]-} ]]; do
    # This waits for nothing to be ready, it only wakes the loop now and then.
    (read -rt 1 _ <> <(:)) &
    wait -n # a group ended, 1 s passed, or a signal came
    for group in "${!step[@]}"; do
      kill -0 "${step[group]}" 2>/dev/null && continue
      wait "${step[group]}"
      set -- "$?"
      unset "step[group]"
      ended "$group" "$1"
    done
    beat=$(stat -c %Y "$stage/heartbeat" 2>/dev/null)
    [[ $beat != "$last" ]] && last=$beat since=$SECONDS
    if [[ -z $stopping$finished ]] && ((SECONDS - since > heartbeat)); then
      stopping="no sign of life for $heartbeat s" stop_by=$SECONDS
    fi
    if [[ $stopping && -z $finished && -z $end_by ]] && ((SECONDS >= stop_by)); then
      echo "$stopping: ending the groups"
      end_by=$SECONDS
    fi
    if [[ $end_by ]] && ((SECONDS >= end_by)); then
      [[ $finished ]] || killing=1
      for group in "${!step[@]}"; do
        [[ $finished && -z $failed && -z ${serves[group]} ]] && continue # it has an end of its own
        kill -"$signal" "${step[group]}"
      done
      signal=KILL end_by=$((SECONDS + 20))
    fi
  done
  [[ -z $finished && -z $failed && $early ]] && failed=$early code=1
  [[ $failed ]] && echo "group ${groups[failed]} failed with exit code $code"
}

free_port() { # free_port NUMBER: that port, or the first free one above
  local port=$1
  while in_use "$port"; do port=$((port + 1)); done
  echo "$port"
}

# run_groups STAGE HASH PORT JOB; `groups`, `serves` and `processes` (of each group) and `heartbeat` are set
run_groups() {
  local hash=$2 port=$3 job=$4 number=1 group meet=() listen=() peers='' own
  stage=$run/$1
  if [[ $hash ]] && grep -qsF "\"$hash\"" "$stage/output.json"; then
    echo "stage $1 is finished already"
    return
  fi
  while [[ -e $stage/attempts/$number ]]; do number=$((number + 1)); done # older logs stay
  logs=$stage/attempts/$number
  mkdir -p "$logs" || exit 3
  rm -f "$stage/stop" "$stage/heartbeat"
  for group in "${!groups[@]}"; do
    meet[group]=$(free_port "$port") port=$((meet[group] + 1))
    [[ ${serves[group]} ]] || continue
    port=$(free_port "$port")
    listen[group]=127.0.0.1:$port peers+=${peers:+,}${groups[group]}=127.0.0.1:$port port=$((port + 1))
  done
  echo "stage $1: attempt $number of ${groups[*]}, logs in $logs"
  step=() stopping=''
  trap 'stop "told to end"' INT TERM
  for group in "${!groups[@]}"; do
    own=(SPECC_ATTEMPT="$number" SPECC_PEERS="$peers" SPECC_DIE_WITH_PARENT=1)
    own+=(no_proxy="${no_proxy:+$no_proxy,}127.0.0.1" NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1")
    [[ ${serves[group]} ]] && own+=(SPECC_LISTEN="${listen[group]}")
    (
      trap '' INT TERM
      exec env "${environment[@]}" "${own[@]}" \
        python3 -m torch.distributed.run --nnodes=1 --nproc-per-node="${processes[group]}" \
        --node-rank=0 --rdzv-backend=static --rdzv-id="$1-$number-${groups[group]}" --master-addr=127.0.0.1 \
        --master-port="${meet[group]}" --max-restarts=0 \
        --signals-to-handle=SIGHUP,SIGQUIT --shutdown-timeout=5 --log-dir="$logs/torchrun/${groups[group]}" \
        -m runtime "$run/plan.json" "$job" "${groups[group]}"
    ) > >(trap "" INT TERM; exec tee "$logs/${groups[group]}.log") 2>&1 &
    step[group]=$!
  done
  watch
  if [[ $failed ]]; then
    grep -h '^error\[' "$logs/${groups[failed]}.log" >&2
    echo "stage $1 failed: group ${groups[failed]} ended with exit code $code" >&2
    exit "$code"
  fi
  if [[ $stopping == "no sign"* ]]; then
    echo "stage $1 failed: $stopping" >&2
    exit 3
  fi
  if [[ ! -e $stage/output.json ]]; then
    echo "stage $1 is stopped and saved; run again to continue"
    exit 130
  fi
  echo "stage $1 is finished"
}

environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
groups=(actor critic) heartbeat=3600
serves=('' 1)
processes=(8 8)
run_groups ppo 6bc994539c1c9199c9efacf3ab100618382869765a02ccac235a900f278c552d 29500 ppo
