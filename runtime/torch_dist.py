"""Megatron's `torch_dist` checkpoint format, written in this process and read with an allow-list.

Megatron's own writer starts a manager process and a forked writer for every save: seconds on a CPU, a
hang when a child dies. Its format is the one of torch.distributed.checkpoint, whose writer does the same
in this process and tells every rank of a failure on any. Megatron's tools read what is written here.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing import ShardedTensor, load
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.base import LoadCommonStrategy
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreLoadPlanner,
    MCoreSavePlanner,
    TorchDistLoadShardedStrategy,
    TorchDistSaveShardedStrategy,
    _replace_sharded_keys_with_state_dict_keys,
    _replace_state_dict_keys_with_sharded_keys,
    _restore_dict_types,
    _unwrap_pyt_sharded_tensor,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from runtime import manifest, unpickle
from runtime.agreement import is_outside, rank, reason, together
from runtime.problem import Problem

INDEX = ".metadata"
SETTINGS = "common.pt"
FORM = "metadata.json"

State = dict[str, Any]
"""A Megatron sharded state dict: nested dicts whose leaves say which part of which tensor they are."""


def write(folder: Path, state: State, code: str) -> None:
    """Write a sharded state into an empty folder; collective.

    Each part that several ranks hold is written by one of them, dealt so that all write about the same
    number of bytes. Every rank raises the same Problem of `code` when any of them fails.
    """
    sharded, settings = save_preprocess(state, validate_access_integrity=True)
    assert isinstance(sharded, dict)
    together(code, "cannot save the checkpoint", lambda: _write_settings(folder, settings))
    base = TorchDistSaveShardedStrategy("torch_dist", 1)
    FullyParallelSaveStrategyWrapper(base).apply_saving_parallelization(sharded)
    by_key, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded, keep_only_main_replica=True)
    planner = MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False)
    try:
        save_tensors(mcore_to_pyt_state_dict(by_key), storage_writer=_Writer(folder), planner=planner)
    except CheckpointException as error:
        raise _as_problem(error, code, "cannot save the checkpoint") from None


def read(folder: Path, state: State, code: str) -> tuple[State, State]:
    """What a sharded state asks for, whatever the layout it was saved under; collective.

    The first is the state with a tensor for each of its leaves, and without what it holds besides; the
    second is what was saved besides. The folder's checksums have to be verified before. Every rank raises
    the same Problem of `code` when the checkpoint lacks a tensor, holds one of another shape, or names
    what it has no use for.
    """
    what = f"cannot read checkpoint `{folder.name}`"
    together(code, what, lambda: _refuse_what_does_not_match(state, unpickle.index(folder / INDEX)))
    settings: list[State] = []
    together(code, what, lambda: settings.append(unpickle.settings(folder / SETTINGS)))
    try:
        loaded = load(state, str(folder), sharded_strategy=_Shards(), common_strategy=_NoSettings())
    except CheckpointException as error:
        raise _as_problem(error, code, what) from None
    assert isinstance(loaded, dict)
    return loaded, settings[0]


class _Writer(FileSystemWriter):
    """One file per rank, on the disk before it counts, and no path of this machine in the index."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, single_file_per_rank=True, sync_files=True, thread_count=1)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Any:
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            raise _of_the_disk(error) from None

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()


class _Reader(FileSystemReader):
    """Reads the index with an allow-list, and only files that the index may name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = Path(folder)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return unpickle.index(self._folder / INDEX)


class _Planner(MCoreLoadPlanner):
    """Reads pickled objects inside the shards as plain data only."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        set_element(self.original_state_dict, self.mappings[name], unpickle.plain(value, name))


class _Shards(TorchDistLoadShardedStrategy):
    """Megatron's way of loading, with the reader and the planner above."""

    def load(self, sharded_state_dict: State, checkpoint_dir: Path) -> State:
        tensors = [leaf for leaf in nested_values(sharded_state_dict) if isinstance(leaf, ShardedTensor)]
        planner = _Planner(
            shapes_validation_sharded_tensors=[t for t in tensors if not t.allow_shape_mismatch],
            allow_shape_mismatch_sharded_tensors={t.key: t for t in tensors if t.allow_shape_mismatch},
        )
        by_key, paths, names = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict)
        wanted = mcore_to_pyt_state_dict(by_key, is_loading=True)
        with warnings.catch_warnings():
            # Megatron describes objects by a class that torch calls old, once for every tensor
            warnings.filterwarnings("ignore", "Please use DTensor", FutureWarning)
            load_tensors(wanted, storage_reader=_Reader(checkpoint_dir), planner=planner)
        loaded: State = {key: _unwrap_pyt_sharded_tensor(value) for key, value in wanted.items()}
        state = _replace_sharded_keys_with_state_dict_keys(loaded, paths, names)
        _restore_dict_types(state, sharded_state_dict)
        return state


class _NoSettings(LoadCommonStrategy):
    """What lies beside the shards has been read already."""

    def load_common(self, checkpoint_dir: Any) -> State:
        return {}

    def load_sharded_objects(self, sharded_objects_state_dict: State, checkpoint_dir: Any) -> State:
        raise NotImplementedError("objects lie in the shards")

    def check_backend_compatibility(self, loaded_backend: Any) -> None:
        """The manifest has told that it is ours."""

    def check_version_compatibility(self, loaded_version: Any) -> None:
        """The manifest has told that it is ours."""


def _write_settings(folder: Path, settings: State) -> None:
    if rank() == 0:
        content = io.BytesIO()
        torch.save(settings, content)
        manifest.write_durably(folder / SETTINGS, content.getvalue())
        save_config(CheckpointingConfig("torch_dist", 1), str(folder))


def _refuse_what_does_not_match(state: State, index: Metadata) -> None:
    saved = index.state_dict_metadata
    tensors = [leaf for leaf in nested_values(state) if isinstance(leaf, ShardedTensor)]
    missing = sorted({tensor.key for tensor in tensors} - set(saved))
    if missing:
        raise unpickle.Refused(f"it has no `{missing[0]}`{_and_more(missing)}")
    for tensor in tensors:
        shape = tuple(saved[tensor.key].size)  # type: ignore[union-attr]
        if not tensor.allow_shape_mismatch and shape != tuple(tensor.global_shape):
            wanted = tuple(tensor.global_shape)
            raise unpickle.Refused(f"its `{tensor.key}` has shape {shape}, but the model needs {wanted}")


def _and_more(names: list[str]) -> str:
    return f" and lacks {len(names) - 1} more tensors" if len(names) > 1 else ""


def _of_the_disk(error: BaseException) -> BaseException:
    """The disk's own error, where torch only says that it could not finish its archive."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _as_problem(error: CheckpointException, code: str, what: str) -> Problem:
    number, (cause, _) = sorted(error.failures.items())[0]
    return Problem(code, f"{what} on rank {number}: {reason(cause)}", outside=is_outside(cause))
