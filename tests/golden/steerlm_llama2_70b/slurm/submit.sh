#!/bin/bash
# Submit steerlm-llama2-70b: 12 jobs, each after those it needs.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=/shared/runs
[[ $results == /* ]] || results=$PWD/$results
run=$results/steerlm-llama2-70b

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
sbatch --test-only "$here/00-oasst.sbatch" "$run"
sbatch --test-only "$here/01-oasst-validation.sbatch" "$run"
sbatch --test-only "$here/02-helpsteer.sbatch" "$run"
sbatch --test-only "$here/03-helpsteer-validation.sbatch" "$run"
sbatch --test-only "$here/04-merged.sbatch" "$run"
sbatch --test-only "$here/05-merged-validation.sbatch" "$run"
sbatch --test-only "$here/06-steerlm-marks.sbatch" "$run"
sbatch --test-only "$here/07-steerlm-marks-validation.sbatch" "$run"
sbatch --test-only "$here/08-steerlm-reward.sbatch" "$run"
sbatch --test-only "$here/09-steerlm-annotate.sbatch" "$run"
sbatch --test-only "$here/10-steerlm-annotate-validation.sbatch" "$run"
sbatch --test-only "$here/11-steerlm-train.sbatch" "$run"

# A log folder that is missing fails a job without a word, and the job cannot make it.
mkdir -p "$run/oasst/attempts" "$run/oasst-validation/attempts" "$run/helpsteer/attempts" "$run/helpsteer-validation/attempts" "$run/merged/attempts" "$run/merged-validation/attempts" "$run/steerlm-marks/attempts" "$run/steerlm-marks-validation/attempts" "$run/steerlm-reward/attempts" "$run/steerlm-annotate/attempts" "$run/steerlm-annotate-validation/attempts" "$run/steerlm-train/attempts"
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

submit 00 oasst
submit 01 oasst-validation
submit 02 helpsteer
submit 03 helpsteer-validation
submit 04 merged --dependency=afterok:"${ids[00]}":"${ids[02]}" --kill-on-invalid-dep=yes
submit 05 merged-validation --dependency=afterok:"${ids[01]}":"${ids[03]}" --kill-on-invalid-dep=yes
submit 06 steerlm-marks --dependency=afterok:"${ids[04]}" --kill-on-invalid-dep=yes
submit 07 steerlm-marks-validation --dependency=afterok:"${ids[05]}" --kill-on-invalid-dep=yes
submit 08 steerlm-reward --dependency=afterok:"${ids[06]}":"${ids[07]}" --kill-on-invalid-dep=yes
submit 09 steerlm-annotate --dependency=afterok:"${ids[00]}":"${ids[08]}" --kill-on-invalid-dep=yes
submit 10 steerlm-annotate-validation --dependency=afterok:"${ids[01]}":"${ids[08]}" --kill-on-invalid-dep=yes
submit 11 steerlm-train --dependency=afterok:"${ids[09]}":"${ids[10]}" --kill-on-invalid-dep=yes
echo "submitted: ${ids[*]}; run folder: $run" >&2
