"""Hugging Face data sets: by id from the hub or its cache, or from a folder that `datasets` saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.problem import Problem


class HubRows:
    """The rows of one split."""

    def __init__(self, dataset: Any, name: str):
        self.dataset, self.name = dataset, name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[index]

    def where(self, index: int) -> str:
        return f"{self.name}: row {index + 1}"

    def fingerprint(self) -> str:
        return f"{self.name}:{len(self)}:{self.dataset._fingerprint}"


def hub_rows(name: str, settings: Mapping[str, Any]) -> HubRows:
    """A data set by its id; the hub's own cache is used without a network."""
    import datasets

    split = settings.get("split") or "train"
    try:
        dataset = datasets.load_dataset(
            name, settings.get("subset"), data_dir=settings.get("folder") or None, split=split
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        advice = "it is neither a file here nor a data set that can be loaded"
        raise Problem("R005", f"no data at `{name}`: {advice} ({reason})", outside=True) from error
    return HubRows(dataset, f"{name}[{split}]")


def saved_rows(folder: Path, settings: Mapping[str, Any]) -> HubRows:
    """A folder written by `save_to_disk`; one with several splits needs `split`."""
    import datasets

    split = settings.get("split") or "train"
    try:
        dataset: Any = datasets.load_from_disk(str(folder))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Problem("R005", f"cannot read the data set in `{folder}`: {reason}", outside=True) from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise Problem(
                "R005",
                f"`{folder}` has no split `{split}`; it has {', '.join(str(name) for name in dataset)}",
            )
        return HubRows(dataset[split], f"{folder}[{split}]")
    return HubRows(dataset, str(folder))
