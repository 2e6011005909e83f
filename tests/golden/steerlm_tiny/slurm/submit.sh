#!/bin/bash
# Submit steerlm-tiny: 13 jobs, each after those it needs.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=$PWD/runs
[[ $results == /* ]] || results=$PWD/$results
run=$results/steerlm-tiny

# The job starts with these variables and no others, so that nothing of this shell changes a run.
export_names=HOME,LANG,LOGNAME,PATH,SHELL,USER

# What Slurm would refuse later, or leave pending for ever, it refuses here.
sbatch --test-only "$here/00-judged.sbatch" "$run"
sbatch --test-only "$here/01-judged-validation.sbatch" "$run"
sbatch --test-only "$here/02-steerlm-marks.sbatch" "$run"
sbatch --test-only "$here/03-steerlm-marks-validation.sbatch" "$run"
sbatch --test-only "$here/04-steerlm-reward.sbatch" "$run"
sbatch --test-only "$here/05-steerlm-annotate.sbatch" "$run"
sbatch --test-only "$here/06-steerlm-annotate-validation.sbatch" "$run"
sbatch --test-only "$here/07-steerlm-train.sbatch" "$run"
sbatch --test-only "$here/08-steerlm-1-ask.sbatch" "$run"
sbatch --test-only "$here/09-steerlm-1-generate.sbatch" "$run"
sbatch --test-only "$here/10-steerlm-1-answers.sbatch" "$run"
sbatch --test-only "$here/11-steerlm-1-annotate.sbatch" "$run"
sbatch --test-only "$here/12-steerlm-1-train.sbatch" "$run"

# A log folder that is missing fails a job without a word, and the job cannot make it.
mkdir -p "$run/judged/attempts" "$run/judged-validation/attempts" "$run/steerlm-marks/attempts" "$run/steerlm-marks-validation/attempts" "$run/steerlm-reward/attempts" "$run/steerlm-annotate/attempts" "$run/steerlm-annotate-validation/attempts" "$run/steerlm-train/attempts" "$run/steerlm-1-ask/attempts" "$run/steerlm-1-generate/attempts" "$run/steerlm-1-answers/attempts" "$run/steerlm-1-annotate/attempts" "$run/steerlm-1-train/attempts"
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

submit 00 judged
submit 01 judged-validation
submit 02 steerlm-marks --dependency=afterok:"${ids[00]}" --kill-on-invalid-dep=yes
submit 03 steerlm-marks-validation --dependency=afterok:"${ids[01]}" --kill-on-invalid-dep=yes
submit 04 steerlm-reward --dependency=afterok:"${ids[02]}":"${ids[03]}" --kill-on-invalid-dep=yes
submit 05 steerlm-annotate --dependency=afterok:"${ids[00]}":"${ids[04]}" --kill-on-invalid-dep=yes
submit 06 steerlm-annotate-validation --dependency=afterok:"${ids[01]}":"${ids[04]}" --kill-on-invalid-dep=yes
submit 07 steerlm-train --dependency=afterok:"${ids[05]}":"${ids[06]}" --kill-on-invalid-dep=yes
submit 08 steerlm-1-ask --dependency=afterok:"${ids[01]}" --kill-on-invalid-dep=yes
submit 09 steerlm-1-generate --dependency=afterok:"${ids[07]}":"${ids[08]}" --kill-on-invalid-dep=yes
submit 10 steerlm-1-answers --dependency=afterok:"${ids[09]}" --kill-on-invalid-dep=yes
submit 11 steerlm-1-annotate --dependency=afterok:"${ids[04]}":"${ids[10]}" --kill-on-invalid-dep=yes
submit 12 steerlm-1-train --dependency=afterok:"${ids[06]}":"${ids[07]}":"${ids[11]}" --kill-on-invalid-dep=yes
echo "submitted: ${ids[*]}; run folder: $run" >&2
