"""Where profiles are looked for, and what they may say."""

import subprocess

import pytest

from specc.spec import cluster
from specc.spec.cluster import find_profile

CPU = "gpus: {{type: cpu, per_node: {}}}\n"


def put(folder, count, name="mine"):
    (folder / "clusters").mkdir(parents=True, exist_ok=True)
    (folder / "clusters" / f"{name}.yaml").write_text(CPU.format(count))


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """A git checkout with a folder of specs in it, and a home for settings."""
    root, config = tmp_path / "checkout", tmp_path / "config"
    specs = root / "experiments" / "specs"
    specs.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", root], check=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    return specs, root, config / "specc"


def test_the_nearest_profile_of_a_name_wins(homes):
    for count, folder in reversed(list(enumerate(homes, start=1))):
        put(folder, count)
        profile, name, said = find_profile("mine", homes[0])
        assert (profile.gpus.per_node, name, said) == (count, "mine", [])


def test_the_working_directory_plays_no_part(homes, tmp_path, monkeypatch):
    put(tmp_path, 7)
    monkeypatch.chdir(tmp_path)
    assert find_profile("mine", homes[0])[0] is None


def test_a_relative_folder_of_settings_does_not_lead_to_the_working_directory(homes, tmp_path, monkeypatch):
    put(tmp_path / "settings" / "specc", 7)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
    assert find_profile("mine", homes[0])[0] is None


def test_a_user_without_a_home_finds_what_is_shipped(homes, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(cluster.Path, "home", homeless)
    assert find_profile("local-cpu", homes[0])[2] == []
    assert [d.code for d in find_profile("nowhere", homes[0])[2]] == ["T010"]


def test_a_profile_can_be_named_as_a_file_beside_the_spec(homes):
    (homes[0] / "here.yaml").write_text(CPU.format(3))
    assert find_profile("here.yaml", homes[0])[0].gpus.per_node == 3
    assert find_profile("./here.yaml", homes[0])[1] == "here"


def test_without_a_name_the_example_is_taken_with_a_warning(homes):
    profile, name, said = find_profile(None, homes[0])
    assert (name, [d.severity for d in said]) == ("example-h100", ["warning"])
    assert profile.gpus.type == "h100-80gb"


@pytest.mark.parametrize("name", sorted(path.stem for path in cluster.SHIPPED.glob("*.yaml")))
def test_every_shipped_profile_is_fine(name, tmp_path):
    assert find_profile(name, tmp_path)[2] == []


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "../..", "/", "~nobody/x.yaml", "."])
def test_a_name_that_cannot_be_a_file_is_not_found(name, tmp_path):
    profile, _, said = find_profile(name, tmp_path)
    assert profile is None
    assert [d.code for d in said] == ["T010"]


def test_mistakes_in_a_profile_are_shown_in_the_profile(homes):
    put(homes[0], "many")
    said = find_profile("mine", homes[0])[2]
    assert said[0].span.origin.name == "clusters/mine.yaml"
    assert (said[0].span.line, said[0].span.column) == (1, 29)


def test_a_profile_that_is_not_yaml_is_shown_in_the_profile(homes):
    put(homes[0], "[2")
    (said,) = find_profile("mine", homes[0])[2]
    assert (said.code, said.span.origin.name) == ("S002", "clusters/mine.yaml")
