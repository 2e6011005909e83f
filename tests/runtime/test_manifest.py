"""The manifest: one form, and no changed byte goes unnoticed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import manifest
from runtime.manifest import FileRecord, Manifest, ManifestError

FILES = {"a.bin": b"first", "rng/rank-0.safetensors": b"second", ".metadata": b"third"}


@pytest.fixture
def step(tmp_path):
    """A step folder with three files and a manifest that describes them."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files = {name: manifest.record(tmp_path / name) for name in FILES}
    manifest.write(tmp_path, Manifest(step=7, model={"head": "language"}, metric=0.5, files=files))
    return tmp_path


def test_what_is_written_is_read(step):
    described = manifest.read(step)
    assert (described.step, described.metric, described.model) == (7, 0.5, {"head": "language"})
    assert manifest.problems(step, described.files) == []


def test_a_record_is_the_size_and_the_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert manifest.record(tmp_path / "file") == FileRecord(3, published)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_file_is_named(step, name):
    content = bytearray((step / name).read_bytes())
    content[2] ^= 1
    (step / name).write_bytes(content)
    assert manifest.problems(step, manifest.read(step).files) == [f"the checksum of `{name}` does not match"]


def test_a_truncated_and_a_missing_file_are_named(step):
    (step / "a.bin").write_bytes(b"fir")
    (step / ".metadata").unlink()
    found = manifest.problems(step, manifest.read(step).files)
    assert found == ["`.metadata` is missing", "`a.bin` has 3 bytes instead of 5"]


@given(data=st.data())
def test_no_flipped_bit_of_the_manifest_goes_unnoticed(data):
    content = bytearray(manifest.render(Manifest(step=3, files={"x": FileRecord(1, "00")})))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ManifestError):
        manifest.parse(bytes(content))


@given(st.integers(0, 200))
def test_a_manifest_cut_short_is_refused(length):
    content = manifest.render(Manifest(step=3, files={"x": FileRecord(1, "00")}))
    with pytest.raises(ManifestError):
        manifest.parse(content[: min(length, len(content) - 1)])


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1), st.integers(0))
)
def test_rendering_and_parsing_are_inverse(sizes):
    files = {f"f{name}": FileRecord(size, "ab") for name, size in sizes.items()}
    described = Manifest(step=1, layout={"tp": 2}, precision="fp32", files=files)
    assert manifest.parse(manifest.render(described)) == described


def test_an_absent_manifest_says_so(tmp_path):
    with pytest.raises(ManifestError, match=r"MANIFEST\.json is missing"):
        manifest.read(tmp_path)


def test_a_manifest_of_another_format_says_which(step):
    text = json.loads((step / manifest.NAME).read_text())
    (step / manifest.NAME).write_text(json.dumps(text | {"format": 99}))
    with pytest.raises(ManifestError, match="format 99, but this version reads format 1"):
        manifest.read(step)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/file", "rng/../../file"])
def test_a_file_outside_the_folder_is_refused(name):
    content = manifest.render(Manifest(step=1, files={name: FileRecord(1, "00")}))
    with pytest.raises(ManifestError, match="not inside the checkpoint"):
        manifest.parse(content)


def test_a_metric_that_is_no_number_is_left_out():
    assert manifest.parse(manifest.render(Manifest(step=1, metric=float("nan")))).metric is None


@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(1, 9))
def test_files_are_dealt_to_exactly_one_rank_each(sizes, ranks):
    files = {f"f{i}": FileRecord(size, "") for i, size in enumerate(sizes)}
    parts = [manifest.dealt(files, rank, ranks) for rank in range(ranks)]
    assert sorted(name for part in parts for name in part) == sorted(files)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.integers(1, 9))
def test_no_rank_has_more_than_an_even_share_and_one_file(sizes, ranks):
    files = {f"f{i}": FileRecord(size, "") for i, size in enumerate(sizes)}
    loads = [sum(r.bytes for r in manifest.dealt(files, rank, ranks).values()) for rank in range(ranks)]
    assert max(loads) <= sum(sizes) / ranks + max(sizes) + len(sizes)
