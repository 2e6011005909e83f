#!/bin/bash
# Submit online-rest: 80 jobs, each after those it needs.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=/shared/runs
[[ $results == /* ]] || results=$PWD/$results
run=$results/online-rest

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
sbatch --test-only "$here/00-rest-1-generate.sbatch" "$run"
sbatch --test-only "$here/01-rest-1-score.sbatch" "$run"
sbatch --test-only "$here/02-rest-1-select.sbatch" "$run"
sbatch --test-only "$here/03-rest-1-train.sbatch" "$run"
sbatch --test-only "$here/04-rest-2-generate.sbatch" "$run"
sbatch --test-only "$here/05-rest-2-score.sbatch" "$run"
sbatch --test-only "$here/06-rest-2-select.sbatch" "$run"
sbatch --test-only "$here/07-rest-2-train.sbatch" "$run"
sbatch --test-only "$here/08-rest-3-generate.sbatch" "$run"
sbatch --test-only "$here/09-rest-3-score.sbatch" "$run"
sbatch --test-only "$here/10-rest-3-select.sbatch" "$run"
sbatch --test-only "$here/11-rest-3-train.sbatch" "$run"
sbatch --test-only "$here/12-rest-4-generate.sbatch" "$run"
sbatch --test-only "$here/13-rest-4-score.sbatch" "$run"
sbatch --test-only "$here/14-rest-4-select.sbatch" "$run"
sbatch --test-only "$here/15-rest-4-train.sbatch" "$run"
sbatch --test-only "$here/16-rest-5-generate.sbatch" "$run"
sbatch --test-only "$here/17-rest-5-score.sbatch" "$run"
sbatch --test-only "$here/18-rest-5-select.sbatch" "$run"
sbatch --test-only "$here/19-rest-5-train.sbatch" "$run"
sbatch --test-only "$here/20-rest-6-generate.sbatch" "$run"
sbatch --test-only "$here/21-rest-6-score.sbatch" "$run"
sbatch --test-only "$here/22-rest-6-select.sbatch" "$run"
sbatch --test-only "$here/23-rest-6-train.sbatch" "$run"
sbatch --test-only "$here/24-rest-7-generate.sbatch" "$run"
sbatch --test-only "$here/25-rest-7-score.sbatch" "$run"
sbatch --test-only "$here/26-rest-7-select.sbatch" "$run"
sbatch --test-only "$here/27-rest-7-train.sbatch" "$run"
sbatch --test-only "$here/28-rest-8-generate.sbatch" "$run"
sbatch --test-only "$here/29-rest-8-score.sbatch" "$run"
sbatch --test-only "$here/30-rest-8-select.sbatch" "$run"
sbatch --test-only "$here/31-rest-8-train.sbatch" "$run"
sbatch --test-only "$here/32-rest-9-generate.sbatch" "$run"
sbatch --test-only "$here/33-rest-9-score.sbatch" "$run"
sbatch --test-only "$here/34-rest-9-select.sbatch" "$run"
sbatch --test-only "$here/35-rest-9-train.sbatch" "$run"
sbatch --test-only "$here/36-rest-10-generate.sbatch" "$run"
sbatch --test-only "$here/37-rest-10-score.sbatch" "$run"
sbatch --test-only "$here/38-rest-10-select.sbatch" "$run"
sbatch --test-only "$here/39-rest-10-train.sbatch" "$run"
sbatch --test-only "$here/40-rest-11-generate.sbatch" "$run"
sbatch --test-only "$here/41-rest-11-score.sbatch" "$run"
sbatch --test-only "$here/42-rest-11-select.sbatch" "$run"
sbatch --test-only "$here/43-rest-11-train.sbatch" "$run"
sbatch --test-only "$here/44-rest-12-generate.sbatch" "$run"
sbatch --test-only "$here/45-rest-12-score.sbatch" "$run"
sbatch --test-only "$here/46-rest-12-select.sbatch" "$run"
sbatch --test-only "$here/47-rest-12-train.sbatch" "$run"
sbatch --test-only "$here/48-rest-13-generate.sbatch" "$run"
sbatch --test-only "$here/49-rest-13-score.sbatch" "$run"
sbatch --test-only "$here/50-rest-13-select.sbatch" "$run"
sbatch --test-only "$here/51-rest-13-train.sbatch" "$run"
sbatch --test-only "$here/52-rest-14-generate.sbatch" "$run"
sbatch --test-only "$here/53-rest-14-score.sbatch" "$run"
sbatch --test-only "$here/54-rest-14-select.sbatch" "$run"
sbatch --test-only "$here/55-rest-14-train.sbatch" "$run"
sbatch --test-only "$here/56-rest-15-generate.sbatch" "$run"
sbatch --test-only "$here/57-rest-15-score.sbatch" "$run"
sbatch --test-only "$here/58-rest-15-select.sbatch" "$run"
sbatch --test-only "$here/59-rest-15-train.sbatch" "$run"
sbatch --test-only "$here/60-rest-16-generate.sbatch" "$run"
sbatch --test-only "$here/61-rest-16-score.sbatch" "$run"
sbatch --test-only "$here/62-rest-16-select.sbatch" "$run"
sbatch --test-only "$here/63-rest-16-train.sbatch" "$run"
sbatch --test-only "$here/64-rest-17-generate.sbatch" "$run"
sbatch --test-only "$here/65-rest-17-score.sbatch" "$run"
sbatch --test-only "$here/66-rest-17-select.sbatch" "$run"
sbatch --test-only "$here/67-rest-17-train.sbatch" "$run"
sbatch --test-only "$here/68-rest-18-generate.sbatch" "$run"
sbatch --test-only "$here/69-rest-18-score.sbatch" "$run"
sbatch --test-only "$here/70-rest-18-select.sbatch" "$run"
sbatch --test-only "$here/71-rest-18-train.sbatch" "$run"
sbatch --test-only "$here/72-rest-19-generate.sbatch" "$run"
sbatch --test-only "$here/73-rest-19-score.sbatch" "$run"
sbatch --test-only "$here/74-rest-19-select.sbatch" "$run"
sbatch --test-only "$here/75-rest-19-train.sbatch" "$run"
sbatch --test-only "$here/76-rest-20-generate.sbatch" "$run"
sbatch --test-only "$here/77-rest-20-score.sbatch" "$run"
sbatch --test-only "$here/78-rest-20-select.sbatch" "$run"
sbatch --test-only "$here/79-rest-20-train.sbatch" "$run"

# A log folder that is missing fails a job without a word, and the job cannot make it.
mkdir -p "$run/rest-1-generate/attempts" "$run/rest-1-score/attempts" "$run/rest-1-select/attempts" "$run/rest-1-train/attempts" "$run/rest-2-generate/attempts" "$run/rest-2-score/attempts" "$run/rest-2-select/attempts" "$run/rest-2-train/attempts" "$run/rest-3-generate/attempts" "$run/rest-3-score/attempts" "$run/rest-3-select/attempts" "$run/rest-3-train/attempts" "$run/rest-4-generate/attempts" "$run/rest-4-score/attempts" "$run/rest-4-select/attempts" "$run/rest-4-train/attempts" "$run/rest-5-generate/attempts" "$run/rest-5-score/attempts" "$run/rest-5-select/attempts" "$run/rest-5-train/attempts" "$run/rest-6-generate/attempts" "$run/rest-6-score/attempts" "$run/rest-6-select/attempts" "$run/rest-6-train/attempts" "$run/rest-7-generate/attempts" "$run/rest-7-score/attempts" "$run/rest-7-select/attempts" "$run/rest-7-train/attempts" "$run/rest-8-generate/attempts" "$run/rest-8-score/attempts" "$run/rest-8-select/attempts" "$run/rest-8-train/attempts" "$run/rest-9-generate/attempts" "$run/rest-9-score/attempts" "$run/rest-9-select/attempts" "$run/rest-9-train/attempts" "$run/rest-10-generate/attempts" "$run/rest-10-score/attempts" "$run/rest-10-select/attempts" "$run/rest-10-train/attempts" "$run/rest-11-generate/attempts" "$run/rest-11-score/attempts" "$run/rest-11-select/attempts" "$run/rest-11-train/attempts" "$run/rest-12-generate/attempts" "$run/rest-12-score/attempts" "$run/rest-12-select/attempts" "$run/rest-12-train/attempts" "$run/rest-13-generate/attempts" "$run/rest-13-score/attempts" "$run/rest-13-select/attempts" "$run/rest-13-train/attempts" "$run/rest-14-generate/attempts" "$run/rest-14-score/attempts" "$run/rest-14-select/attempts" "$run/rest-14-train/attempts" "$run/rest-15-generate/attempts" "$run/rest-15-score/attempts" "$run/rest-15-select/attempts" "$run/rest-15-train/attempts" "$run/rest-16-generate/attempts" "$run/rest-16-score/attempts" "$run/rest-16-select/attempts" "$run/rest-16-train/attempts" "$run/rest-17-generate/attempts" "$run/rest-17-score/attempts" "$run/rest-17-select/attempts" "$run/rest-17-train/attempts" "$run/rest-18-generate/attempts" "$run/rest-18-score/attempts" "$run/rest-18-select/attempts" "$run/rest-18-train/attempts" "$run/rest-19-generate/attempts" "$run/rest-19-score/attempts" "$run/rest-19-select/attempts" "$run/rest-19-train/attempts" "$run/rest-20-generate/attempts" "$run/rest-20-score/attempts" "$run/rest-20-select/attempts" "$run/rest-20-train/attempts"
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

submit 00 rest-1-generate
submit 01 rest-1-score --dependency=afterok:"${ids[00]}" --kill-on-invalid-dep=yes
submit 02 rest-1-select --dependency=afterok:"${ids[01]}" --kill-on-invalid-dep=yes
submit 03 rest-1-train --dependency=afterok:"${ids[02]}" --kill-on-invalid-dep=yes
submit 04 rest-2-generate --dependency=afterok:"${ids[03]}" --kill-on-invalid-dep=yes
submit 05 rest-2-score --dependency=afterok:"${ids[04]}" --kill-on-invalid-dep=yes
submit 06 rest-2-select --dependency=afterok:"${ids[05]}" --kill-on-invalid-dep=yes
submit 07 rest-2-train --dependency=afterok:"${ids[03]}":"${ids[06]}" --kill-on-invalid-dep=yes
submit 08 rest-3-generate --dependency=afterok:"${ids[07]}" --kill-on-invalid-dep=yes
submit 09 rest-3-score --dependency=afterok:"${ids[08]}" --kill-on-invalid-dep=yes
submit 10 rest-3-select --dependency=afterok:"${ids[09]}" --kill-on-invalid-dep=yes
submit 11 rest-3-train --dependency=afterok:"${ids[07]}":"${ids[10]}" --kill-on-invalid-dep=yes
submit 12 rest-4-generate --dependency=afterok:"${ids[11]}" --kill-on-invalid-dep=yes
submit 13 rest-4-score --dependency=afterok:"${ids[12]}" --kill-on-invalid-dep=yes
submit 14 rest-4-select --dependency=afterok:"${ids[13]}" --kill-on-invalid-dep=yes
submit 15 rest-4-train --dependency=afterok:"${ids[11]}":"${ids[14]}" --kill-on-invalid-dep=yes
submit 16 rest-5-generate --dependency=afterok:"${ids[15]}" --kill-on-invalid-dep=yes
submit 17 rest-5-score --dependency=afterok:"${ids[16]}" --kill-on-invalid-dep=yes
submit 18 rest-5-select --dependency=afterok:"${ids[17]}" --kill-on-invalid-dep=yes
submit 19 rest-5-train --dependency=afterok:"${ids[15]}":"${ids[18]}" --kill-on-invalid-dep=yes
submit 20 rest-6-generate --dependency=afterok:"${ids[19]}" --kill-on-invalid-dep=yes
submit 21 rest-6-score --dependency=afterok:"${ids[20]}" --kill-on-invalid-dep=yes
submit 22 rest-6-select --dependency=afterok:"${ids[21]}" --kill-on-invalid-dep=yes
submit 23 rest-6-train --dependency=afterok:"${ids[19]}":"${ids[22]}" --kill-on-invalid-dep=yes
submit 24 rest-7-generate --dependency=afterok:"${ids[23]}" --kill-on-invalid-dep=yes
submit 25 rest-7-score --dependency=afterok:"${ids[24]}" --kill-on-invalid-dep=yes
submit 26 rest-7-select --dependency=afterok:"${ids[25]}" --kill-on-invalid-dep=yes
submit 27 rest-7-train --dependency=afterok:"${ids[23]}":"${ids[26]}" --kill-on-invalid-dep=yes
submit 28 rest-8-generate --dependency=afterok:"${ids[27]}" --kill-on-invalid-dep=yes
submit 29 rest-8-score --dependency=afterok:"${ids[28]}" --kill-on-invalid-dep=yes
submit 30 rest-8-select --dependency=afterok:"${ids[29]}" --kill-on-invalid-dep=yes
submit 31 rest-8-train --dependency=afterok:"${ids[27]}":"${ids[30]}" --kill-on-invalid-dep=yes
submit 32 rest-9-generate --dependency=afterok:"${ids[31]}" --kill-on-invalid-dep=yes
submit 33 rest-9-score --dependency=afterok:"${ids[32]}" --kill-on-invalid-dep=yes
submit 34 rest-9-select --dependency=afterok:"${ids[33]}" --kill-on-invalid-dep=yes
submit 35 rest-9-train --dependency=afterok:"${ids[31]}":"${ids[34]}" --kill-on-invalid-dep=yes
submit 36 rest-10-generate --dependency=afterok:"${ids[35]}" --kill-on-invalid-dep=yes
submit 37 rest-10-score --dependency=afterok:"${ids[36]}" --kill-on-invalid-dep=yes
submit 38 rest-10-select --dependency=afterok:"${ids[37]}" --kill-on-invalid-dep=yes
submit 39 rest-10-train --dependency=afterok:"${ids[35]}":"${ids[38]}" --kill-on-invalid-dep=yes
submit 40 rest-11-generate --dependency=afterok:"${ids[39]}" --kill-on-invalid-dep=yes
submit 41 rest-11-score --dependency=afterok:"${ids[40]}" --kill-on-invalid-dep=yes
submit 42 rest-11-select --dependency=afterok:"${ids[41]}" --kill-on-invalid-dep=yes
submit 43 rest-11-train --dependency=afterok:"${ids[39]}":"${ids[42]}" --kill-on-invalid-dep=yes
submit 44 rest-12-generate --dependency=afterok:"${ids[43]}" --kill-on-invalid-dep=yes
submit 45 rest-12-score --dependency=afterok:"${ids[44]}" --kill-on-invalid-dep=yes
submit 46 rest-12-select --dependency=afterok:"${ids[45]}" --kill-on-invalid-dep=yes
submit 47 rest-12-train --dependency=afterok:"${ids[43]}":"${ids[46]}" --kill-on-invalid-dep=yes
submit 48 rest-13-generate --dependency=afterok:"${ids[47]}" --kill-on-invalid-dep=yes
submit 49 rest-13-score --dependency=afterok:"${ids[48]}" --kill-on-invalid-dep=yes
submit 50 rest-13-select --dependency=afterok:"${ids[49]}" --kill-on-invalid-dep=yes
submit 51 rest-13-train --dependency=afterok:"${ids[47]}":"${ids[50]}" --kill-on-invalid-dep=yes
submit 52 rest-14-generate --dependency=afterok:"${ids[51]}" --kill-on-invalid-dep=yes
submit 53 rest-14-score --dependency=afterok:"${ids[52]}" --kill-on-invalid-dep=yes
submit 54 rest-14-select --dependency=afterok:"${ids[53]}" --kill-on-invalid-dep=yes
submit 55 rest-14-train --dependency=afterok:"${ids[51]}":"${ids[54]}" --kill-on-invalid-dep=yes
submit 56 rest-15-generate --dependency=afterok:"${ids[55]}" --kill-on-invalid-dep=yes
submit 57 rest-15-score --dependency=afterok:"${ids[56]}" --kill-on-invalid-dep=yes
submit 58 rest-15-select --dependency=afterok:"${ids[57]}" --kill-on-invalid-dep=yes
submit 59 rest-15-train --dependency=afterok:"${ids[55]}":"${ids[58]}" --kill-on-invalid-dep=yes
submit 60 rest-16-generate --dependency=afterok:"${ids[59]}" --kill-on-invalid-dep=yes
submit 61 rest-16-score --dependency=afterok:"${ids[60]}" --kill-on-invalid-dep=yes
submit 62 rest-16-select --dependency=afterok:"${ids[61]}" --kill-on-invalid-dep=yes
submit 63 rest-16-train --dependency=afterok:"${ids[59]}":"${ids[62]}" --kill-on-invalid-dep=yes
submit 64 rest-17-generate --dependency=afterok:"${ids[63]}" --kill-on-invalid-dep=yes
submit 65 rest-17-score --dependency=afterok:"${ids[64]}" --kill-on-invalid-dep=yes
submit 66 rest-17-select --dependency=afterok:"${ids[65]}" --kill-on-invalid-dep=yes
submit 67 rest-17-train --dependency=afterok:"${ids[63]}":"${ids[66]}" --kill-on-invalid-dep=yes
submit 68 rest-18-generate --dependency=afterok:"${ids[67]}" --kill-on-invalid-dep=yes
submit 69 rest-18-score --dependency=afterok:"${ids[68]}" --kill-on-invalid-dep=yes
submit 70 rest-18-select --dependency=afterok:"${ids[69]}" --kill-on-invalid-dep=yes
submit 71 rest-18-train --dependency=afterok:"${ids[67]}":"${ids[70]}" --kill-on-invalid-dep=yes
submit 72 rest-19-generate --dependency=afterok:"${ids[71]}" --kill-on-invalid-dep=yes
submit 73 rest-19-score --dependency=afterok:"${ids[72]}" --kill-on-invalid-dep=yes
submit 74 rest-19-select --dependency=afterok:"${ids[73]}" --kill-on-invalid-dep=yes
submit 75 rest-19-train --dependency=afterok:"${ids[71]}":"${ids[74]}" --kill-on-invalid-dep=yes
submit 76 rest-20-generate --dependency=afterok:"${ids[75]}" --kill-on-invalid-dep=yes
submit 77 rest-20-score --dependency=afterok:"${ids[76]}" --kill-on-invalid-dep=yes
submit 78 rest-20-select --dependency=afterok:"${ids[77]}" --kill-on-invalid-dep=yes
submit 79 rest-20-train --dependency=afterok:"${ids[75]}":"${ids[78]}" --kill-on-invalid-dep=yes
echo "submitted: ${ids[*]}; run folder: $run" >&2
