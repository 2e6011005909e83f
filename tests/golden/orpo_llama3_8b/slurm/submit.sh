#!/bin/bash
# Submit orpo-llama3-8b: 1 job, each after those it needs.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=/shared/runs
[[ $results == /* ]] || results=$PWD/$results
run=$results/orpo-llama3-8b

# Secrets come from this shell; only their names are ever written down.
secrets=(HF_TOKEN WANDB_API_KEY)
for name in "${secrets[@]}"; do
  if [[ -z ${!name-} ]]; then
    echo "error: \$$name is not set; export it and submit again" >&2
    exit 3
  fi
done
# The job starts with these variables and no others, so that nothing of this shell changes a run.
export_names=HOME,LANG,LOGNAME,PATH,SHELL,USER,HF_TOKEN,WANDB_API_KEY

# What Slurm would refuse later, or leave pending for ever, it refuses here.
sbatch --test-only "$here/00-orpo.sbatch" "$run"

# A log folder that is missing fails a job without a word, and the job cannot make it.
mkdir -p "$run/orpo/attempts"
cp "$here/plan.json" "$run/.plan.json.new"
mv "$run/.plan.json.new" "$run/plan.json" # at once: a job never reads half a plan

declare -A ids # of the jobs submitted so far, by number

# submit NUMBER STAGE [FLAG...]
submit() {
  local number=$1 stage=$2 id
  id=$(sbatch --parsable --export="$export_names" --output="$run/$stage/attempts/%j.log" "${@:3}" \
    "$here/$number-$stage.sbatch" "$run")
  id=${id%%;*} # ID;CLUSTER where there are several clusters
  if [[ ! $id =~ ^[0-9]+$ ]]; then # Slurm takes a dependency on an unknown job as fulfilled
    echo "error: sbatch answered \`$id\` for stage $stage, which is not a job id" >&2
    exit 3
  fi
  ids[$number]=$id
  echo "$id $stage"
}

submit 00 orpo
echo "submitted: ${ids[*]}; run folder: $run" >&2
