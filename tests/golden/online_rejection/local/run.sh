#!/bin/bash
# Run online-rejection on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/online-rejection}
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

environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-1-generate 5b28e170ff37feb376015d853cdeee9ee9daa8f2a911decffab054164da844cc 8 29500 rejection-1-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-1-score 75883b9a053a8a162501b3e11c2ce201882b5ac8110c230ddc595c4d834a61f5 8 29500 rejection-1-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-1-select cec8ddc517a019cb60d8b02f77eaf651b3a21d0ed966826ea847fd5c3d56413b 0 29500 rejection-1-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-1-train 7df2c602656016c22b08823cc92a50411d1af08776d3ac023970387f2d83cdb0 8 29500 rejection-1-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-generate 063d0da03995b4c0a3884b07e350f5f477bff6ce334e3bc3ad848c06175d7023 8 29500 rejection-2-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-score 0d11c2ee057af8b3a475c6ee5c5e81039adfeb3e559ce488b010b4f320578d9b 8 29500 rejection-2-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-2-select 65ab377dca22d0a08ef75451370ee2d74175086e7d3b6e2a8ef771e38bceecd5 0 29500 rejection-2-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-train cd7314a210cf4b776c1a1ba02fc7ef4c80eca4aca12f6a1a40a584be2108bfd9 8 29500 rejection-2-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-generate c0aa8bf4ef5d1d5d1f9ca966f6328753527edc94cc53e5258178679b738758e4 8 29500 rejection-3-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-score 0fc053b44a62864e44b0d6f8456118e835c21c31e7380301a57b4112590d2878 8 29500 rejection-3-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-3-select 7826757c25befdd4e2fba2f5fd7b72096096b9423571a3dd0ddaa75b70192cd3 0 29500 rejection-3-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-train a8e08ef07ec3d511b092e8c0a4ca0896f7dbe2282b033a57524a6eca91c22a54 8 29500 rejection-3-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-generate 005fe711775109c91b49acbb219310a613774d9341e2708f31005a7ed3a7d5e0 8 29500 rejection-4-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-score 2e2b63ee8501c17611778192f7a217e4054cb514e7b7dddbf44cd8b81499c9c2 8 29500 rejection-4-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-4-select fc977150bc3a9361ec97cc93125dd250152550321fb0740f250c7f48a0d80c41 0 29500 rejection-4-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-train b420f83ec8512ae3d8e551f404f5a8b51dca955ed61a9cdba1c881cc25617a8b 8 29500 rejection-4-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-generate 7be950e7a9b59038b36ecdbe4f536a19e82092e3fd53e90cf76db587ed9d8238 8 29500 rejection-5-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-score 871df687e2a937824dbe671f45d0a116b3494f8ac4430fc954c84aa666c541f0 8 29500 rejection-5-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-5-select 96ff89d15283a9b0284904960ef712e1e1f749e329fce846d4ad5ba2070110f1 0 29500 rejection-5-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-train ab941c5c24d68e8b0071b84f67a974f42106f64daa4ad65f02da19b7065732bb 8 29500 rejection-5-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-generate 542c9c1bcd7ae5b47dea79cdeb22664797c19e99e2729db7e0ad89401fdceed9 8 29500 rejection-6-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-score 5d52a135026734de74a02286c1788188b38a7ca8697e7a655a6cf3961021ada5 8 29500 rejection-6-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-6-select de0f66f7c1f30d46a06e904d6341471b00c83fdb068be4e01ffbd560cfe5df16 0 29500 rejection-6-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-train 5beedd43d56d5b064e85fd043fc092ccadd85f813a6fd07017506f39eb0bc592 8 29500 rejection-6-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-generate b3cb3aa9381b6e35f18186817ce36f2fbc60955415cfd2b53990673084d3ce87 8 29500 rejection-7-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-score 961b2dd518e6c87bb40771814d2f60bcddb8982452345bdaada547425e158af5 8 29500 rejection-7-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-7-select 801b00c128bf55b22c7344f211adb652c8b86c5b6d07790e32966aa919f8de53 0 29500 rejection-7-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-train 839a8306497917b04769fbcf37675faaaab663161ced1fa0716fe5911c92beee 8 29500 rejection-7-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-generate 3d33133eb4fcede401ea15048704aa6836f09bbec1a3ad5d3bf82d47fff903ac 8 29500 rejection-8-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-score ec91b318992c58dbf30207bf6ab0f7625ddd8b4ef12ea638a0969eb44ce97252 8 29500 rejection-8-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-8-select 3c55e978ad2b0f6ab644bf056e91ae6321b904539e0beed267f597d73167dbea 0 29500 rejection-8-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-train b39f662182e873d427a03bbd4a32bb2bab9d7babfa1877958654f6ec5e3aff5e 8 29500 rejection-8-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-generate cf417cfcfe8e1a1fd315cc9d6a29ca52f672a8ed094b584b58ffd48e087e2aa9 8 29500 rejection-9-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-score f40d40edf745b3c9a35f36221b0e517dba03c5ce8eb68d79e72d5ad261bc4731 8 29500 rejection-9-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-9-select f2ff1d9afe0de9df1debca693eb6c4606cacce884ddc1f614a394efd3ca1945b 0 29500 rejection-9-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-train 3faf4d18cadae6b930c17d9acc7c1c0532f46d88fc22148e9f8930a906a15819 8 29500 rejection-9-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-generate 18bd69cb45490029cfe0abb2000019c5bc4982bcddfc2a3561cdd99f3ab4ffa8 8 29500 rejection-10-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-score 35a57f89f0f53a2da5defb925c26091eba82dd26cfb3f990ebbf5ae8f37569f9 8 29500 rejection-10-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-10-select 72af3bd1f81204c82cc9c8b78b248900845c54d930bd269dd94b259738cf7101 0 29500 rejection-10-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-train 279c100af3129e999cb0f73fccaf2db909114b3552e894e98acd818b1f2a501f 8 29500 rejection-10-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-generate 0e155756258a026e26a9fb32e075b94ce6204897441d64861600c71ab141d533 8 29500 rejection-11-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-score fc2e698896f6713943875d7d797beb0023627e27b0fa9cdb32f049132b1645b1 8 29500 rejection-11-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-11-select 286ef6503b31e2c39476c9db73ff93f722d96e60a4002f4eff0d464c3f1041a2 0 29500 rejection-11-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-train 6cbcab47574e7091b173487d5ec6c3762f5f413546e4ff8b8d7e5ca1261a115d 8 29500 rejection-11-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-generate 6d8980cbaa2a27be5105797bd2ab7154375a93fe1ca61b85d0f3324b7f9bd919 8 29500 rejection-12-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-score 4a0c5d4278948af6a613d655063807e115f6ada383f3695b1bff9558c57541b8 8 29500 rejection-12-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-12-select df4fc756cced97af00264adf3c433c6e397cb12b8432daaa0ba5c3a13f247abe 0 29500 rejection-12-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-train dc939ef0c3e48cc5032fe57836959266afd33fb809e299987e4c19f7eb1215dc 8 29500 rejection-12-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-generate 3dd1d290a4756d8c0625e806f27d98a53ffc538b8cefd6b44319d34d68fe4df6 8 29500 rejection-13-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-score d3a57f783657d4991cd2c4c312e281660d8e1693ed257077353a3f8ca586c345 8 29500 rejection-13-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-13-select 9f5c081ee30e6b4fa4b5fc1944abecab251a56b4da4c4e512446c4551d8043b9 0 29500 rejection-13-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-train 238221d3c46b88713ca7c6518447931a25f33e87b0507bfdee7fe0e95597a04c 8 29500 rejection-13-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-generate 0b69aa7e06de5c6239e5694446f3984ab6aca6a111000a8ef3666c3c7e5d044e 8 29500 rejection-14-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-score c52d59cc9570cd8b5f9436c3d4bc3c634de4e9d59a7151966ac4e9a93a6490b0 8 29500 rejection-14-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-14-select ae9e1ab35c67a3a4ca51713818a51a2c3e5d3d344353384d2384f739b865b5e0 0 29500 rejection-14-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-train 6d7776a4fad78afead41ba2e2e39bc1ec283615a502acf1c0d68ab72e8053e43 8 29500 rejection-14-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-generate 30e5c69433e989607404d47c97aedc76a8e4a544249a41aab207eb89b5ba99fd 8 29500 rejection-15-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-score 4e6736b462fceb2adba41fa4eadaf4049dce47043fe22fd365b3c7353842b258 8 29500 rejection-15-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-15-select a5647c59f1825b5c0cdc1896d2dbc1d0c2327910c450a45489318562baa58b37 0 29500 rejection-15-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-train 3d1a9fa6ff522ffbc271bcc3750df548c90008b08a5dc121703e1a990250f32f 8 29500 rejection-15-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-generate 54103ad0611730c4518437590eeb6a67d4b4ed617962350af8c73fbae10fd5a5 8 29500 rejection-16-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-score 577001d5b4a45ff1975aea546fd1b5de35aae4546a9398c30de47c3d0ae9eb9c 8 29500 rejection-16-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-16-select a02d7f775d5cb90cd728c63ccb2a188606642ac301415670ed744002d5818248 0 29500 rejection-16-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-train 27a70b3bedefc02e42f37c9cd67d46df0b45b0b07176dab3bff8be8ce794835d 8 29500 rejection-16-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-generate c46ab51f6c883754ea72c54449ff9a1153419caed2f94a4617aeac743291ac6f 8 29500 rejection-17-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-score 899535798894e7980ea81355a2f7ad325f5ed8d5aa14c6a50aaee00c7035b257 8 29500 rejection-17-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-17-select 136a8484053aa7a969908a56d19400656a43ffb5b14dea4e2671c2d98bc05e83 0 29500 rejection-17-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-train 1b042f7ea189386d20b528e2394629b6e549529b3f55c9f6f988f419e9c220f6 8 29500 rejection-17-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-generate b6207333235c48374e67bbc7f6b8fe1813f16cb8645a6b15217a9e4e35a4d4eb 8 29500 rejection-18-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-score 22119413140544c123de617f52989cdfba21d2e3b19ace3fefa916a1ea7befaf 8 29500 rejection-18-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-18-select c9926de302d249331898d1a07658abd1cb75dedba328f54fb391758b1d05918e 0 29500 rejection-18-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-train 2780f6f614c73238e9ec26154062f69680a9e66b40a9a1f3d73533e3e7e17812 8 29500 rejection-18-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-generate f49e0d19bf82e6be211552019cf3bd51951d6cb35a2904843d692dc7bc185027 8 29500 rejection-19-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-score 42ad8bdd75251048d420e932f8f8483b13acca8d90ae2d10073fa129175b7812 8 29500 rejection-19-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-19-select af237d9ac4db7b8e28db1112b96f11c2955cfad3291663c1e59fae9fa42381cf 0 29500 rejection-19-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-train fa9fc1ec20d1fec7940c8a55ac223fe3c35e2046989e8fb5ddc7a6b165bcdef4 8 29500 rejection-19-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-generate d3922bf8c292cb8aec136334fa356326f78497ca15a1434a684ef70d874bf962 8 29500 rejection-20-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-score d932f52e4014f8c36d9f0c3125ecd73534d9a206a8505202122cbb757ae9401a 8 29500 rejection-20-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-20-select 8b701c9050ebac7d668570168fb396f793638a39462faf33be7ebd748bdee7e4 0 29500 rejection-20-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-train 746390fe743755d66de65053df56382be9b3564401722044142e684db4df71ff 8 29500 rejection-20-train model
