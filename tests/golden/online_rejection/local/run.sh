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
run_stage rejection-1-train ba39bf7e0974fed45c6461334dbdc89d5b15f221fc18e37fd359c6705a88085e 8 29500 rejection-1-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-generate 2558fe19fffdf42a8bd7150cf1f39c060ca59400147b3d8ba831475c1975c47f 8 29500 rejection-2-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-score 950df0db80b2567b39610b6cd51b94b3b242893269202b224af2d6f01305b832 8 29500 rejection-2-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-2-select b9d6995f5671a98642dcc799c5c482aebc0305875936aece9a111ed6eb1900d4 0 29500 rejection-2-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-2-train 3f9879d5bfca2f6784ad2ce72e6ead1be3d4189563f6ceed9c4678b2a0120be5 8 29500 rejection-2-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-generate 6eda177c197ffeae99b38fce5a7d5808920ddbb20ce3453a298216d89a2dab2d 8 29500 rejection-3-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-score 1a0b946247477e5a91cb7a1ebb6b72f09f0d6352bd6b32f2c95af109abc3d4a1 8 29500 rejection-3-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-3-select 13ec7c7851c7c670c5964858eb249f115a3580ad1cf349e9aee986675c7b5e87 0 29500 rejection-3-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-3-train 8aec2d336259a548a90f72728cfe5a503caad9136ac8c74ffe989b428d18773c 8 29500 rejection-3-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-generate ed89f2ed7166b2084557ff5ec31d6d48039c14c4bf0ec373830732b6aeb97acd 8 29500 rejection-4-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-score ab8334c8c56456795334def7acbd9590d9ee5593359a9bf2d70e1480feaaec9d 8 29500 rejection-4-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-4-select add6e861f75a5607bf89ac4435394215df5f6b3a9debaac995c5516dc6a9b3dd 0 29500 rejection-4-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-4-train 49431b123475e28be683c035130858a9231b407aba842f06cadc724e0c9ea9f5 8 29500 rejection-4-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-generate 7ce9e2c23de37e2df25f9d4e91e8ea0eae2c62f99a65f1fd2e1988ae2127070b 8 29500 rejection-5-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-score 672137499eba6281d8799a42c97218e9208b0f0aa0f66df6a07fcb447d594b81 8 29500 rejection-5-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-5-select 9bfb25bac82dea974370e94b81d10daa67675340d48f681511eeae32bed8ca74 0 29500 rejection-5-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-5-train 6b0ca53ebf3be306e7f45e7bb566ac3015a7fce96de6443f60ccfa546765d51e 8 29500 rejection-5-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-generate 4b9f8b28a327decf41387dd7350a713b015f5ad8e0eaebabc3de0947e60705da 8 29500 rejection-6-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-score 3ddf374f028d02e6d18fa18ac7b5d1ef4ec1101674002c0ff62e1cd140884cae 8 29500 rejection-6-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-6-select 91f67021cf82e6813d82e1fbaca0e33ef184d7e4e6bf68c6d75562a245c1e9c2 0 29500 rejection-6-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-6-train ac4629e469565f2ab50b3a851b4697ac5de41a6dd6168707cc374feeae6ad0ac 8 29500 rejection-6-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-generate 21512b516e824e44268b81f92ba71e3abc25685508d1b27a1296b1ba6ce378dc 8 29500 rejection-7-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-score 1def9d14bf797dcfd7f9257f40764b5449bbabbd587c99553329592b6f2b1ab0 8 29500 rejection-7-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-7-select 5dae2d621db03d9728165bba6f23b70759e9516d7616cc0222972e3f31d2d18f 0 29500 rejection-7-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-7-train ee2a74b04c38028522f8169da85504b39ec00a6229d0d79457f1775d902ebc77 8 29500 rejection-7-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-generate b92b75478e124b228b86eda2c40c7e08725879fbfe0fd5925428368c5bd1c2d6 8 29500 rejection-8-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-score c94ef6c5d582ae5b04f0d9d0dd152b9a645adc167b709ee1692da369c5abd39d 8 29500 rejection-8-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-8-select 9371e9d2ecb064df9c14c175b41d19d2735137bafabe14ee9b3ce7a005c01a75 0 29500 rejection-8-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-8-train ed11c019f18e1cd987fa7af634e852534d25eaf0b44f8a2bee7abec0e70c5776 8 29500 rejection-8-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-generate 4dfc40df2c18c63ce71ee34881825dca45cb08c8d907a4ade39e41d459c8748d 8 29500 rejection-9-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-score c22645f8d499a955a9ba91b061efa789c1417a868ac48038662c1a906b907523 8 29500 rejection-9-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-9-select 5a1dbdad282e2fcd580860b83edea2492e32315fb91f73b8ed77bcafba29dc31 0 29500 rejection-9-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-9-train 1fb65989684c12745ff74222361d0f9936b5e330889d3a87e8fec8db639d2159 8 29500 rejection-9-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-generate 7fbf7da01e3c3af2cda7ce128964db0558d3458e33ee35410f3de932720ed366 8 29500 rejection-10-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-score 3b0cd71caf59d42eba2076a51b6e69e2c8c76c551be42102eca98bcbf7fd1805 8 29500 rejection-10-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-10-select 8ab297daf0b2f9dc198fadd94ad079108b33e51ed0881fa70e8eb956719ed2a5 0 29500 rejection-10-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-10-train 2139b94cb7a3f808c1f8f667264c93d76aa13c3a0d6905dbd6452795bb581bde 8 29500 rejection-10-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-generate 12eb7169cb067f9f15be4b6ab8d5d182af976e60ffcde666b908bb3964340f3e 8 29500 rejection-11-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-score 76ce50431754efc7c6fb2360ff1414ca55753887529a51b361e8bd4cb781c4fa 8 29500 rejection-11-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-11-select 435ad890173f4f0f9f88a568713e87f69ffdca22b40a07227f3d1fa443a48861 0 29500 rejection-11-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-11-train 7c51d7c95b7c55359404f0ebd24f455b5ed395a8c27c92915378e9e7d209b359 8 29500 rejection-11-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-generate f2c52ccf02ed8eef92dd4ae6f9d34ae68dd4688b8d042405c7bce74e7d657afe 8 29500 rejection-12-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-score 1c1d94026fee214e2c7dc0f4345a7817e92b9f0f034ec9e914945ac49f8930d6 8 29500 rejection-12-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-12-select f6a58ba4dfc6bb28f00609f912419f67e83065bb6e5c82c4c279d85020bb0f65 0 29500 rejection-12-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-12-train e9aed5fd2e5988bdf86213cf48ab56ec6f3b7302badc3e448129e742203ec867 8 29500 rejection-12-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-generate 8ea661c91669c94bca5130baa4a56bc5b709b69d3eca992466b3d8e166ce097e 8 29500 rejection-13-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-score a6ead39744e375bd02e80b41626429568ef71bb224781b36178157a87eb6ce60 8 29500 rejection-13-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-13-select e9665e379a9b95b0755cbfde6d65d403c1fd250a1a43046416d2adcae7715bd7 0 29500 rejection-13-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-13-train 68b39404ce459588c0e8d56674fded1515f426c6712ff8ee3c00cbc0f5e1719d 8 29500 rejection-13-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-generate 18bdb9c2b347c94a5a12d93aea1dc4623e0bbea4bddc637b0f08fa4b2bf353dc 8 29500 rejection-14-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-score 44103b37fec0aa875b9d9b195105d542f0e677a3b21572d600350a6ff50f44df 8 29500 rejection-14-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-14-select 5d8f1aa6916d0bc4ac9a0e3fd5c339b7a71db2a527691b3bb4846c828d568749 0 29500 rejection-14-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-14-train e469451eeb7a03b89e2d446b0ac2e11ba0a479907c8bb26da59fb6825e301669 8 29500 rejection-14-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-generate 148b5624202e4de671e3c6cc538b622280c047607e143a2604990da49d2638cb 8 29500 rejection-15-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-score 944cbb0bd1e7c7dc35472a96a59b876136860018a1215f84134ae98ff784f2a5 8 29500 rejection-15-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-15-select 7ed1e0de460ce77b3b21d2b064c5f3f36f9cc1bfe74b5117e19df3ef4fdcba2f 0 29500 rejection-15-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-15-train dd26aa83b52bbfa2a9bd32498d2afc3279cac94eaa72d34d9e0864a3448bd632 8 29500 rejection-15-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-generate 759359f2172e810f2b6aae2c91cb9acfc4182ad7a29ddc1d91f8614d3a8aa438 8 29500 rejection-16-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-score b300834a706bf4da9886785873373fcab39dd9edb4c74165a57eab30a4d7f9d8 8 29500 rejection-16-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-16-select c5c5ca8e9e6c3df57218eb6e92eb5c27dcda84eeb814159aa429cd59ed412a2c 0 29500 rejection-16-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-16-train 16140fe8e781f66795643c94625be30bcf3d4a3cc8398a6956dce357bb318cdf 8 29500 rejection-16-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-generate e7c050e973b67ee624988cf753513499d5fe6d4c949bc3355d473f97e5a77ad1 8 29500 rejection-17-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-score bb231de647c63f8dcd4eba16ea30dcc14f716125e286528878adb5483493597d 8 29500 rejection-17-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-17-select 6da66fad0deeb3198e661c3434acfa3e48966254f9db7e1e80ecfd7882c898d3 0 29500 rejection-17-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-17-train 665e11e231c9d2d60bc73b84f577099b74cf61db31ea1e086a556881312844e5 8 29500 rejection-17-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-generate 5be1e84c67449099b0f9a272a40a21ca7fc012746db9e3b58387bba32b377199 8 29500 rejection-18-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-score 5d6637be3aada2e60245c9af02b5ee2123f3e9d9a4678fbe6c79446c8a15c489 8 29500 rejection-18-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-18-select 7468924c3c3af40971d163a59303deae04756e93ba5865b0b63b9e3deda7858a 0 29500 rejection-18-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-18-train c05076e2e426747217f61e98c3d300ed1526c9f31cc6b9855c3ec5ec58c88f4f 8 29500 rejection-18-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-generate 9c6f365340e4724bf8af28964ee4ff7dc0e8dc5087fa108555cd5ca40c7e9331 8 29500 rejection-19-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-score 322580466937cbdeeac43ffbe7be33e80a0f882e4acb7400d43630bad2a5b714 8 29500 rejection-19-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-19-select 161eb15b54c44e141c7c8a7caf210135d229152b1b65f8bdc81f5587d1587d73 0 29500 rejection-19-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-19-train a3fc66631d73cbb6fdaff60a995dba4f71c62f9618e72095abe47737ad1de6cb 8 29500 rejection-19-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-generate 342ff96ffa75f5cf7876b1ea02c6d9bce1a9138cbd7d849612ede8fb2ffd6870 8 29500 rejection-20-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-score 73370be2f3ebf0b96a8e2cec60528972ca7558b82f5b93f418cd320ec80f7a7c 8 29500 rejection-20-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rejection-20-select f7710b79a3f1c8b543cdeaaffeba899915096bb4c147ea4326ff46660d262807 0 29500 rejection-20-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rejection-20-train 9683cc9bf558043fb03fabc85b4a17f289d2e7f899196c4c1732632b80c6158e 8 29500 rejection-20-train model
