"""Hugging Face checkpoints in and out of the engine, one small table per family.

What lives here: `families` says for each family which Hugging Face tensor is which Megatron
parameter and how the one becomes the other; `load` reads safetensors into whatever layout the
ranks have; `save` writes a folder that `transformers` opens; `fetch` finds the files.

Only slices that a rank needs are read, and an export holds one shard at a time, so neither needs
the memory of a whole model. The parts are imported by name, so that a tokenizer costs no torch.
"""
