#!/bin/sh
# PPO in three commands: `make demo` runs this. SPECC names the command to use, RUN the run folder, begun anew.
set -eu
cd "$(dirname "$0")/.."
specc=${SPECC:-specc}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run=${RUN:-runs/demo}
rm -rf "$run"

say specc plan specs/ppo_llama70b.yaml
"$specc" plan specs/ppo_llama70b.yaml

say specc compile specs/ppo_llama70b.yaml --target slurm
"$specc" compile specs/ppo_llama70b.yaml --target slurm -o "$out/bundle" 2>/dev/null
sed -n '1,26p' "$out"/bundle/00-*.sbatch

say specc run specs/ppo_tiny.yaml --dir "$run"
"$specc" run specs/ppo_tiny.yaml --dir "$run"

say specc report "$run"
"$specc" report "$run"

echo
echo "Right sums among the responses that were written down (no model judges these):"
awk -F'"' '
  { split($6, asked, /[+=]/); said = $10; sub(/<eos>$/, "", said); step = $3; gsub(/[^0-9]/, "", step)
    tenth = int((step - 1) / 8); all[tenth]++; right[tenth] += (said == asked[1] + asked[2]) }
  END { for (i = 0; i in all; i++) printf "steps %2d to %2d: %3d %%\n", 8*i + 1, 8*i + 8, 100 * right[i] / all[i] }
' "$run/ppo/actor/samples.jsonl"
