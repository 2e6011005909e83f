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
run_stage rest-1-train e94adf33fc337a819c6dc550646ad447d9af96c9500b50a651e451cc5b8ac345 8 29500 rest-1-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-generate efa1323616a6d610d69bb6185c95bef647c43cf36e15a63556d43c0460a78cc1 8 29500 rest-2-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-score 8b635faf67a57da8bde73a174d85973ad5ba025b289ea95ce50f2558feb4aed3 8 29500 rest-2-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-2-select f8c35aa2358e071f5b27a36bf42121559f3a01b015de913457dd74028a1d6019 0 29500 rest-2-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-2-train 722664f44cca3b623aa24ebea8ea60a55763f65d089fca72afefc0f833d2aba8 8 29500 rest-2-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-generate f023e69a12b3b16cf39b4e1537b73edb7ae8149b0e034dc7d8f2c2003d636098 8 29500 rest-3-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-score 73c63c36fc7b42d323efe08bc504461f560d6ec79934ed15846db6becfa0a7db 8 29500 rest-3-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-3-select 26a4bef2cde024539b1b015d176ca3a50430f15ea8fce4bdda71cc17a930cfac 0 29500 rest-3-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-3-train b730fa3d619ca4d3e4cec05569834e343f4d24b511cce52bbec83be02012639d 8 29500 rest-3-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-generate 0550c27d084f27daf152f8b6b2c72726df822c73251dfe42677addc297e189a4 8 29500 rest-4-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-score 393d9ecc5840f6ec12c0f178688bae4892288948235313e68b7ecb25a909b495 8 29500 rest-4-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-4-select 2ddaa27107e3285985158c68597749aac1cacb2f5df5d5c7048e17ae01657cc4 0 29500 rest-4-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-4-train 4b9d2147c51aba1ee3cfa3f52dd9c1d3ea471d53c0eee12964d968e0d455c412 8 29500 rest-4-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-generate 014ef8d1e5d4ef3fd8741b4aeb207ccdae1939fdc6fc4ff60aa8c73a911d8462 8 29500 rest-5-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-score 90b01429d35f9476c7bebb74ab6bb63780612ebab2c322d184020ed228a913e9 8 29500 rest-5-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-5-select 42cf317092ba1ff1634627b18d426ab55c1388585493aa590b28c63c09098bf4 0 29500 rest-5-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-5-train 00578ab4274cfd490b14554b37bfd32be7369780465d01351323640d26d14333 8 29500 rest-5-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-generate bf207d485892d84e855ca7e6bf676c99f2473dd588614e19da7fb93639f88aa0 8 29500 rest-6-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-score d31808cc281d49ccce5a0161e3a7ee751fa2e9de9fb13c45ab227831e23956db 8 29500 rest-6-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-6-select 8a120ba19cd994ada382f3f933283cece8039123f13bdd0d664deb66d80b1f0a 0 29500 rest-6-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-6-train 17711aeaf6985f605f1edcc21e7755c362061ee13609d233e21a51a1fb8aed7c 8 29500 rest-6-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-generate 721aae506bfc3867ebd487d6f91891d8315b24a4fbf017d407af891d8481831a 8 29500 rest-7-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-score 25abc3ed76b1a8278a467c65de77eba74da8dcc558c1d4e261eb1bf4881c7f8e 8 29500 rest-7-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-7-select 874a2411f9f65a7ed8b8b4cc16926b8dbec6523662146e91397a430493c40c22 0 29500 rest-7-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-7-train fb28f814854b15e6a7cab12b7bd33f1c84905fda6ceaa9eb3f09b8f0a95dd7f2 8 29500 rest-7-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-generate 8f6c64f52cb0c6ce61fcd4be40834fcbcaf79611e9942e4f7748cd3a58d7cbf2 8 29500 rest-8-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-score 73b2244381a7617b379c8e4ed048e1ffa372e4034ee7c8536c860ba5aaad50f5 8 29500 rest-8-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-8-select 7b8d8b03654d98d3beec72873dde277daf063ff2310d88bef1dc481289f3ad8a 0 29500 rest-8-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-8-train e9a87a95f10a4a18073e5062b33e80b52326c15c89c997f1755371b9d0571c3e 8 29500 rest-8-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-generate 6d1f9e67637410514a296c4083eedd3ea4952b1a38203f52a3406c512089476c 8 29500 rest-9-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-score e60032ac1a497fc59a4680606b159333256f730ae4ae66075149f14631bfec18 8 29500 rest-9-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-9-select 678d1bde5deee3fb0c213ec07c2525bf759fb5a4c1fa9d7d0d57f013c514b910 0 29500 rest-9-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-9-train 668a45c286abbd0f2a83d25849fec30b3497641bd88d39d33641b4b742223664 8 29500 rest-9-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-generate 237a9fad9f709f692335b0958a26d7a4b777a942d9bbee9e9119dff9ab157141 8 29500 rest-10-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-score 9047c42964f0feaf733a12b4f9c036376150f6c7197fa4d437fdb1b9485037db 8 29500 rest-10-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-10-select 35af7bd6ac3a6092896d8bb9a040988b2bf5f38d87a0e7454ddd2cf4de6e0b98 0 29500 rest-10-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-10-train 46bb4f41027186044c7b00ad28608df463f0a48b5dcf8add58261030ad1f48f0 8 29500 rest-10-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-generate c44abbfb504aefec3502261b89beff9264b7aa447ce7ed9ef2066b449cd97c2d 8 29500 rest-11-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-score a21be2346c1683d4c8fad04ce6b9318ee4fead2b1db4e13ecad0b399ae024a0f 8 29500 rest-11-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-11-select 059aa934650424629ad1d4b501c051b1acf79931f1bac5fbc9d8bcaeb0bd9718 0 29500 rest-11-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-11-train dc91a040319c3549371303ab2d43cecbb6eaebce7425221eccf0d24d919a5dd6 8 29500 rest-11-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-generate 12af6a5b80b03a897401e08c9c9c7a03a09b26333f4d7da50e0e4c358a578606 8 29500 rest-12-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-score 580f9a30b6d7de938c3ccf19f0a8a4bdf55bba95c8ecf6c1a29cd015b1246951 8 29500 rest-12-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-12-select 28d03b3b61d228ef677e3ef2fd34a1c25c83f89b39e22108d326a024812a4b5e 0 29500 rest-12-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-12-train b79fcebcd8242aa3103eb4def32c7026add422f69827e30fb6ddd484ce7272b1 8 29500 rest-12-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-generate ec22da5dedefbcb4627fef35f96332ba6d1ccbab9029d0746512c90a2e8a191c 8 29500 rest-13-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-score ff4b441aaf5a98e82471435fbbb27729fffcfb6b6ba38aed9b6a154d9b47b260 8 29500 rest-13-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-13-select 90674765ac8f70d8f3f487a261debfce95c4f8b6a081216dc288aa70cf3bdc0d 0 29500 rest-13-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-13-train ac1caf06a99e300f65152553eb1c278eec966ea36ace61c50ef1cbf6419c5fc7 8 29500 rest-13-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-generate 77da27c11a3be55f6a2864b5e98f13956a6eadc60f7081d41d771c66c94c4dfa 8 29500 rest-14-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-score 3dfff04a41d52e14b491a90e0da6b1c3886f4372811ffecdb09e05afabff17e2 8 29500 rest-14-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-14-select dee605c8a3377bdfb9413fbca9bb5bb2452249ceae210bc12b79d71ad466bfd2 0 29500 rest-14-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-14-train e55af46accc73c33f63f6293fb3afcc3d80d41166ed1f69b1b56ea289f4b329f 8 29500 rest-14-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-generate 24df581f40f8ca6c6c8a108942a69207886f7337a385d54ac127543010d3c6e9 8 29500 rest-15-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-score d76d98e48c829474fb6211df5637c9ceb2f7c8d3d6e1200952bc2c59006ae83a 8 29500 rest-15-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-15-select 885792354e78b549eaef85d96adc60ed439bc7b55837febe8fab570d8389e788 0 29500 rest-15-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-15-train e34086902c188503c710c585b017a50b23eca5dece9569d90059bef578c5fc96 8 29500 rest-15-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-generate e78f696332e436d9277c3b88155f92c953377868e98f66446b07ff3f6a4e40ae 8 29500 rest-16-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-score 58610f81d4079718b6b3f7c015b3e9414b62b985cb4d4f450b9dab0687191239 8 29500 rest-16-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-16-select 5007a13b40ad4f84ce205ea1a3fecd9e88c211e12e1fe0cd472b287597b922a4 0 29500 rest-16-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-16-train 735af902db81a526d9d375eed91625c0f0b6ba66505464e641447c8489a20f3a 8 29500 rest-16-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-generate 1f71a3830c93457a5b5cae681d150f775c410c969ecd72209cb530cc277934df 8 29500 rest-17-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-score dd4af6f4310c8ebdfe7fde25fa387b97cd68791c699f2c959bcf15e18d5e8448 8 29500 rest-17-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-17-select d7ab2488ed1cc5c2ff34a332fd4b4ebbd0eaba4cfd159567f71a5cc17096653a 0 29500 rest-17-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-17-train 927b949c3f848c24fbd392032def019bae24f9b1b113497166c806ae910caee4 8 29500 rest-17-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-generate 21664594e49c3f51dcf2f291d1ebb23aedee50400a282406f824143c64b8b28b 8 29500 rest-18-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-score 2885da846c8bbb6c0177d9bc33750a3a91049317cba7fc964d8e1aa610996be9 8 29500 rest-18-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-18-select 9ebc8a821831f0fb6c4d47afaf96eb48ecc423c816a9a5d6d61f1bc986e93bfe 0 29500 rest-18-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-18-train ac39dcabbfa00d9343a93841b1838c7963938e2e6bfcc1d221add7e76eb02709 8 29500 rest-18-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-generate c0a4b1b5f8fa57fc2f47e46b8e5ba54978794f70b95d89d92c6912416ed14a70 8 29500 rest-19-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-score 8d5f6d8da9ae38c52f636a7aeecd3908294bbaea95b382468c3739d24f531954 8 29500 rest-19-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-19-select a059de2b41f6b517bafacb417babd970e1d74abe1a63f7a143ab7b1725341be9 0 29500 rest-19-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-19-train 2c9039e30a6573628f0c76f225b04074f23b0f27b48c365750089c91b0d12f69 8 29500 rest-19-train model
environment=(CUDA_DEVICE_MAX_CONNECTIONS=1 HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-generate 3dbc64bda99cd7f7468bbbc4104d04ec216d90ba47d992cf3cbad57a50c3c56d 8 29500 rest-20-generate model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-score baad643930f6d59a208138385dee224120498d4dc23102bf382f2c561be3faaa 8 29500 rest-20-score model
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1)
run_stage rest-20-select b21d6c4a4132b2c0fe117965a81abe2d5c16cbcb55ad7d2ff2cb7186f94badf7 0 29500 rest-20-select clerk
environment=(HF_HOME=/shared/cache/huggingface PYTHONPATH=/shared/specc PYTHONSAFEPATH=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)
run_stage rest-20-train 1631fab4d12fa84f963613c633f621dc8e11ea5a57aa035c9864f218802dc818 8 29500 rest-20-train model
