"""Names of models: folders, URLs and Hugging Face ids."""

import pytest

pytest.importorskip("fsspec")

from runtime.hf.fetch import fetch
from runtime.problem import Problem

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote():
    """A folder `memory://models/tiny` with weights, a config, and a file nobody needs."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("model.safetensors", "config.json", "README.md"):
        memory.pipe(f"/models/tiny/{name}", name.encode())
    yield "memory://models/tiny"
    memory.store.clear()


def test_a_local_path_is_itself(tmp_path):
    assert fetch(str(tmp_path)) == tmp_path
    assert fetch(f"file://{tmp_path}") == tmp_path


def test_a_url_is_copied_once_and_only_what_is_needed(remote, cache):
    import fsspec

    folder = fetch(remote)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "config.json").read_text() == "config.json"
    fsspec.filesystem("memory").store.clear()
    assert fetch(remote) == folder
    assert not [p for p in cache.rglob("*") if p.name.startswith(".partial")]


def test_a_single_remote_file_is_copied(remote):
    assert fetch(f"{remote}/config.json").read_text() == "config.json"


def test_a_url_that_holds_nothing_is_a_problem(remote):
    with pytest.raises(Problem, match=r"R030: `memory://models/none` cannot be read"):
        fetch("memory://models/none")


def test_a_url_of_an_unknown_kind_is_a_problem():
    with pytest.raises(Problem, match=r"R030: `nosuch://x/y` cannot be read \(.*nosuch"):
        fetch("nosuch://x/y")


def hub(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_an_id_in_the_local_cache_needs_no_network(tmp_path, monkeypatch):
    hub(tmp_path, monkeypatch)
    repository = tmp_path / "hub" / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    assert fetch("me/tiny") == repository / "snapshots" / COMMIT
    assert fetch("me/tiny", COMMIT) == fetch(f"me/tiny@{COMMIT}") == repository / "snapshots" / COMMIT


def test_an_id_that_is_absent_offline_says_what_to_do(tmp_path, monkeypatch):
    hub(tmp_path, monkeypatch)
    with pytest.raises(Problem) as caught:
        fetch("me/unknown", "v2")
    assert caught.value.outside
    assert caught.value.message == (
        "`me/unknown@v2` is no folder here and cannot be had from the Hugging Face hub (HF_HUB_OFFLINE is "
        "set and it is not in the local cache); download it where there is a network (`hf download "
        "me/unknown`) or give its folder"
    )
