#!/bin/bash
# Run online-rest on this machine, one stage after the other. Call it again to continue.
# Made by specc 0.1.0 from plan.json; change the spec, not this file.
# Use: run.sh [RUN_FOLDER]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${1:-$PWD/runs/online-rest}
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
run_stage rest-1-generate 5b28e170ff37feb376015d853cdeee9ee9daa8f2a911decffab054164da844cc 8 29500 rest-1-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-1-score 69f9f0dad8475e754eed4ac69b8c29c087eca022e0510d0e8cd0037d42b30b89 8 29500 rest-1-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-1-select c493ca0e82a635a5a5c3091e96f896f552fdf70cfdfe9b7cb4b2164fae13ef48 0 29500 rest-1-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-1-train b636abb35845faf9759252012e6e16a6c50af4d5e069882eade52489a2d9c3a0 8 29500 rest-1-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-generate 6bf24743cadfe45047b2c63b904bbfd7c5765c0a6dc3e2b34277abd925025f7f 8 29500 rest-2-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-score cd6ded2111268b0682f0818afc34b34dcd5c53e36b652ab69677ca7e26271280 8 29500 rest-2-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-2-select 897631e8c10f8dda625f192034b72efcc00258b872b43c0050d10b8ece2c6e97 0 29500 rest-2-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-train e232248fb3eb0bd085f71cdd284777a9d4b524845e27867e10e57782e7dbb677 8 29500 rest-2-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-generate 81b31b0ac683ac6f8ef83b2a19386f06782189e3d8450baa1b0714cc9e0fe3db 8 29500 rest-3-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-score fab56d86e5cc31f1b25c683a7ea1173da8eb631ca18769ede7eb7a782556fd16 8 29500 rest-3-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-3-select 4f44cdffcf362bac43e42afe1470edb3ff510995f7d23926da06c1c20c5c6049 0 29500 rest-3-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-train 59cb11760718bd03e6460bd44c7acd0a29804cac7df4c460bd6b6bce3de44db7 8 29500 rest-3-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-generate 5c095afa1b68c4acf1478115af45a2251bbf4c78159357c7e5f0554377c22ec5 8 29500 rest-4-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-score 613c9105a7999060e7b3c12db5cff91056cb587d70b00cc151becbcf653fc5e8 8 29500 rest-4-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-4-select c9ab3fbd3084b47b44fb789c696e747e6b4c9552986aa3313754dd6227478977 0 29500 rest-4-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-train 401d085a084be3f49553004b1ab923ca6a4367dddeecf8695e175c28acb6eae2 8 29500 rest-4-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-generate 9ea208d4355f3d203aa6184a3562f3806f9fd09babd077e0ba46aa9811a2755a 8 29500 rest-5-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-score 794bf2a0c1de7c210b5d3ed3a1fba8593459bd526972406607243e79bf847bd1 8 29500 rest-5-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-5-select f125cbec11da4f41afc404c8f4aef5ac4e18cbde00176cb1fbd715c1759d5935 0 29500 rest-5-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-train 81a4f90ba79c630c1d1ec8a23d50af5aedb19ba319f2c65c350242d319279ad5 8 29500 rest-5-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-generate 286df92b7cdf2e01b9b72e3929c167fce57860d1381226f5d628ca9b2328f0d0 8 29500 rest-6-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-score ad0ab8c327577dfd9a69aeb7bf9f4a81d325a73188e67a8b674665308819df93 8 29500 rest-6-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-6-select 13656b842c243d849bf4fa6f5824a0cbdd7c188de49e58590cb1a3f7c4caa197 0 29500 rest-6-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-train ff6c9590f9105b722e3f980ee2285e03a10379953b281a9a64ea311fb9d143f8 8 29500 rest-6-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-generate 6be8455bc49c5d715fa777acf24f106189662f000d930c4399e34a4a4dd86b16 8 29500 rest-7-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-score 36fb179befeccbfadbfecdf80270ae858155f86a2a5d41c88dc67b1514a1dfbb 8 29500 rest-7-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-7-select e66d3aaf3b87df1319a1a05490024820395f8c29b8da8c6abe9cb53b84fe3e79 0 29500 rest-7-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-train 84e268ebdc724542237428a5f128788a060341e2d0add7747465e2d415547d21 8 29500 rest-7-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-generate f0394cab7f345e8c4850b0fa67b1c10d683b35fb8399067db3f4a804ce712646 8 29500 rest-8-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-score 3f8c6063d322bc8e773865d432ea994678fee058204b6c75003223e2585325dc 8 29500 rest-8-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-8-select d1ee935d91693458f76fc198068b1310d9e4203d6f9839d4ff7773c74fd4f2cb 0 29500 rest-8-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-train e4705a79da7b5ccfa07eb29b9d4d50821ca175d442d8cf56fa698b28ed16b7d3 8 29500 rest-8-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-generate 10faea75c743988dc7f737463eeaa805bd0d0545ab3df148db3ab26afe6cd985 8 29500 rest-9-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-score f553987d3890b1cc54fc72912b410b8265f0950c35b7d5a0acaf040b3bc6a7d4 8 29500 rest-9-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-9-select 33f0ae723124e20c550dbe51fe4982065a1ffad4ba8b352bb835b4b87d5543fe 0 29500 rest-9-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-train 16827d94548a260e00cc5faa1b2d4c0b9eeac65951bfc729f84314653949505d 8 29500 rest-9-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-generate eb0488b875d06f35bd1500b80f7340846840c79da5e990fcb7f95f103a1f9789 8 29500 rest-10-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-score 0435ee39460ef69e02f1b746656483af393479a27dbade09a572b5954e94e49c 8 29500 rest-10-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-10-select bb1c2dd8e2044a5374c0d70d29e5064989cee8cde123201bfeae7abaff5d5e8f 0 29500 rest-10-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-train 1250619205af794557accf8c58c63843a140401b0596fe3cc0b03c7bbb5558fc 8 29500 rest-10-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-generate 53a337f83c1a395b17af739d6e60dcb5aa026a2abea6113fa97f6ffa560f44db 8 29500 rest-11-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-score 94dc2f01d1e6f6abd3aa713e61cf137d62a011b485c4f4f997f79b980ac0c46a 8 29500 rest-11-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-11-select e3550b5726d40905cf759c07123c0b7008bb164bb80bf9f5254607c81b9e4471 0 29500 rest-11-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-train a60532eee9f1092f57c4793d76a2b47b6aab98f38a94f32096c5f06a465f7982 8 29500 rest-11-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-generate a3ab75b9a970ac155f9e8f945e961b241e59a4f34c854011b1ec90380ca71aae 8 29500 rest-12-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-score 09a7e5fe01c5a01f47a6bcd5866d75c02836c295fde5a5ae6d7aaecc6ea2df69 8 29500 rest-12-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-12-select 8ec00e240224ea450fb58b1e2eeafa59f98b9652cdf1e0455ad2214e921b6b83 0 29500 rest-12-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-train ee27b2d7a16bed4b7ae6bbb817777087fbc882b800a78cd44295a21e3fd54bf8 8 29500 rest-12-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-generate fc74043f6dc1497a094ab84f4618715803e25346b3dfa215d259820d64d9bae1 8 29500 rest-13-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-score ea18aaee1aa08650d58798be9f58e3b614e390f9324edec9cc9fb448df0d5c0b 8 29500 rest-13-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-13-select 120d5cb8eed37b806c8750b63d79c6936e61fc8dedee6bdcfc0911a59346ee64 0 29500 rest-13-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-train 291ca8f438532a02cd875d548a944f510c0d795aa4923deb05e015a9ccc96dc8 8 29500 rest-13-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-generate b7e8b9410cdace34156e4d2f5b2bd6680d7691bf5c95da909b45d83cbcb5cd03 8 29500 rest-14-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-score 6743793e8882cb6f5f063515ceb0c7ee748c308df6f84ba65d8c15338466e0c9 8 29500 rest-14-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-14-select 1e0c0d08e8e286a64b968ebe7845f017255ccabe460512c688ce8da4cb9ba106 0 29500 rest-14-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-train 810378b80c22a64728cd4b6025216d9328a73e11bc9014a990e1e7700b3b871c 8 29500 rest-14-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-generate 8483765de42be184a02e6060ec91146ca8c1daa03651683737d36d9cdd9f6806 8 29500 rest-15-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-score daaf05e73a6bbc9b5d0cc6866fff9ceedde6e163b5c103212c3d9db79a6f2480 8 29500 rest-15-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-15-select 9cf7830442cedd0e2b077cee72dbe2be1f85f4f11de6ddc21b4c466325b86354 0 29500 rest-15-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-train f9f9ecbff772a54ea84aa7d09f7a7c1908cf4f88e284b5cd0223b04ece16ad21 8 29500 rest-15-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-generate 8e0ee59d70f82eeeea69f7d3386e6cb100ca854412c5e51b1b2a5dd690fefe34 8 29500 rest-16-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-score c3d0fc76f04bfe20c0d6a0e7db487a947177a3e3cee466c2dfc01f80e8cedfbb 8 29500 rest-16-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-16-select 0636207fa0cf1c9aad81777b5e72a51bc9f50f9aacf4dc2e876d143af0082cb6 0 29500 rest-16-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-train 1fedef864b5c35684434f4244524e380f17b71c3f0da874791a7dc13baf5a1ef 8 29500 rest-16-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-generate 5beac1e8e27c55d30f06b5146ada12104f1172f20e7a28833b9a4d1f60437ed6 8 29500 rest-17-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-score e7c793fd97111c9c1ab14013e837145c17d5df9e5025e3d5f7fd1bfc91057ec9 8 29500 rest-17-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-17-select ca15e72cdcd2b49b6fded375ee36d41ec19aa2031d0677264a4c2c522e62f8b8 0 29500 rest-17-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-train 6752f48bf2c396554c07d6cb4519810bcfd784d2ea3c453dba4d975ef1d97140 8 29500 rest-17-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-generate 009f1c1f5f693dc625578e909ee36fe5aee8c87ea5ec6b34d7311859c7c32634 8 29500 rest-18-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-score 38fe13196aadebed418bf25f0da531421388102c4a96ffee9eef7b7c44afb21b 8 29500 rest-18-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-18-select b27f936c0c534c5df0a3421ed87948194ee650581b4db332c6c9e1be7c0084a2 0 29500 rest-18-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-train 0ad705e6cff370b740d88a2930a0432f9f306e8925994c3d08ac91d9ff5b72be 8 29500 rest-18-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-generate 7d9c72b6adf236b09e6787dbd91535ee1050893d9db750f2d3925b02dd916aea 8 29500 rest-19-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-score 560782a348af4b2fcf0251ab64176f5e222e3032e2fd23df4be520fef1fc3ec1 8 29500 rest-19-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-19-select a332b1cc3e452a73d48ab2ca4867230c1d08a2c7a53f44183b51b31f75f71b17 0 29500 rest-19-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-train 1d98830846fa9ed9d59cdaa2d39deee2e90b558eb5656ebdb9a37e7e65dc182b 8 29500 rest-19-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-generate 0c32304ab34d983daab0f5f4f1dfd7895f39475c901ec31e487330255d80fa81 8 29500 rest-20-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-score 612df5532f0c935a6470ea293b83d3bf0b1c7c4550dd96de496e1fdac068fdc0 8 29500 rest-20-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-20-select f39879ea59114a365d9031688b32cf493eb864625d8d90d25550f683b9e01a79 0 29500 rest-20-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-train c7e8c438f7b98bb197c74367307af77ae0d257960e55daf55adfdfbe6b83bc86 8 29500 rest-20-train model
