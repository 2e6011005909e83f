"""The allow-list: what a checkpoint's pickles may name, and nothing else."""

import io
import os
import pickle
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from torch.distributed.checkpoint.metadata import (  # noqa: E402
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from runtime import unpickle  # noqa: E402


class Attack:
    """What an attacker's pickle calls."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def an_index(**storage) -> Metadata:
    size = torch.Size([2, 3])
    properties = TensorProperties(dtype=torch.bfloat16)
    tensor = TensorStorageMetadata(properties, size, [ChunkStorageMetadata(torch.Size([0, 0]), size)])
    return Metadata(
        {"w": tensor, "o": BytesStorageMetadata()}, storage_data=storage, storage_meta=StorageMeta()
    )


def test_the_index_of_a_checkpoint_is_read(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps(an_index()))
    assert unpickle.index(tmp_path / ".metadata") == an_index()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_name_that_is_not_on_the_list_is_refused_and_not_called(tmp_path, protocol):
    marker = tmp_path / "called"
    evil = an_index(evil=Attack(marker))
    (tmp_path / ".metadata").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(unpickle.Refused, match=r"`.metadata` names `(posix.system|copy_reg._reconstructor)`"):
        unpickle.index(tmp_path / ".metadata")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", [("builtins", "eval"), ("torch", "load"), ("torch.serialization", "load"), ("os", "path.join")]
)
def test_a_neighbour_of_an_allowed_name_is_refused(tmp_path, name):
    module, attribute = name
    (tmp_path / ".metadata").write_bytes(
        b"\x80\x04\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(attribute)])
        + attribute.encode()
        + b"\x93."
    )
    with pytest.raises(unpickle.Refused, match="which no checkpoint has a use for"):
        unpickle.index(tmp_path / ".metadata")


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps(an_index())[:-20], pickle.dumps({"a": 1})]
)
def test_what_is_no_index_is_refused_without_a_traceback(tmp_path, content):
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(unpickle.Refused, match=r"`.metadata`"):
        unpickle.index(tmp_path / ".metadata")


def test_settings_of_numbers_and_tensors_are_read(tmp_path):
    settings = {"optimizer": {"param_groups": [{"lr": 0.1, "betas": (0.9, 0.95)}]}, "step": torch.tensor(3.0)}
    torch.save(settings, tmp_path / "common.pt")
    assert unpickle.settings(tmp_path / "common.pt") == settings


def test_settings_that_call_something_are_refused_by_name(tmp_path):
    marker = tmp_path / "called"
    torch.save({"x": Attack(marker)}, tmp_path / "common.pt")
    with pytest.raises(unpickle.Refused, match=r"`common.pt` names `posix.system`"):
        unpickle.settings(tmp_path / "common.pt")
    assert not marker.exists()


def test_an_object_in_a_shard_is_read_as_plain_data_only():
    content = io.BytesIO()
    torch.save([MetadataIndex("w")], content)
    content.seek(0)
    with pytest.raises(unpickle.Refused, match=r"`layer._extra_state` names `torch\S+MetadataIndex`"):
        unpickle.plain(content, "layer._extra_state")
