#!/bin/bash
# Submit ppo-tiny: 3 jobs, each after those it needs.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=$PWD/runs
[[ $results == /* ]] || results=$PWD/$results
run=$results/ppo-tiny

# The job starts with these variables and no others, so that nothing of this shell changes a run.
export_names=HOME,LANG,LOGNAME,PATH,SHELL,USER

# What Slurm would refuse later, or leave pending for ever, it refuses here.
sbatch --test-only "$here/00-sft.sbatch" "$run"
sbatch --test-only "$here/01-rm.sbatch" "$run"
sbatch --test-only "$here/02-ppo.sbatch" "$run"

# A log folder that is missing fails a job without a word, and the job cannot make it.
mkdir -p "$run/sft/attempts" "$run/rm/attempts" "$run/ppo/attempts"
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

declare -A any # of the stages with several attempts: the dependency that any success fulfils

# Slurm queues no hetjob again when the node that runs its script is lost, and then nobody is left to do it.
# So further attempts wait from the start, each for the failure of all before it; when one succeeds, or
# gives up for good, those behind it are cancelled.
# submit_attempts NUMBER STAGE ATTEMPTS [DEPENDENCY]
submit_attempts() {
  local number=$1 stage=$2 attempts=$3 needs=${4-} first attempt id failed
  submit "$number" "$stage" ${needs:+"--dependency=$needs" --kill-on-invalid-dep=yes}
  first=${ids[$number]} failed=afternotok:$first any[$number]=afterok:$first
  for ((attempt = 2; attempt <= attempts; attempt++)); do
    id=$(sbatch --parsable --export="$export_names" --output="$run/$stage/attempts/%j.log" \
      --dependency="${needs:+$needs,}$failed" --kill-on-invalid-dep=yes \
      "$here/$number-$stage.sbatch" "$run" "$first")
    id=${id%%;*}
    if [[ ! $id =~ ^[0-9]+$ ]]; then
      echo "error: sbatch answered \`$id\` for attempt $attempt at stage $stage, which is not a job id" >&2
      exit 3
    fi
    echo "$id" >>"$run/$stage/attempts/$first.queued"
    ids[$number]+=" $id" failed+=:$id any[$number]+="?afterok:$id"
    echo "$id $stage, attempt $attempt if those before it are lost"
  done
}

submit 00 sft
submit 01 rm --dependency=afterok:"${ids[00]}" --kill-on-invalid-dep=yes
submit_attempts 02 ppo 3 afterok:"${ids[00]}":"${ids[01]}"
echo "submitted: ${ids[*]}; run folder: $run" >&2
