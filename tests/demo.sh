#!/bin/sh
# The project in four commands: `make demo` runs this. SPECC names the command to use.
set -eu
cd "$(dirname "$0")/.."
specc=${SPECC:-specc}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

say specc check specs/sft_llama3_70b.yaml
"$specc" check specs/sft_llama3_70b.yaml

say specc plan specs/sft_llama3_70b.yaml
"$specc" plan specs/sft_llama3_70b.yaml

say specc compile specs/sft_llama3_70b.yaml --target slurm
"$specc" compile specs/sft_llama3_70b.yaml --target slurm -o "$out/bundle"
sed -n '1,25p' "$out"/bundle/00-*.sbatch

say specc run specs/sft_tiny.yaml
"$specc" run specs/sft_tiny.yaml --dir "$out/run"

echo
echo "The loss, first and last step, and the exported checkpoint:"
grep '"loss"' "$out"/run/sft/metrics.jsonl | sed -n '1p;$p' | cut -d, -f1-4
ls -l "$out"/run/sft/hf
