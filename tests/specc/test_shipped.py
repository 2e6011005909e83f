"""Shipped files are found in a checkout and in an installed wheel, from anywhere."""

import pytest

from specc import shipped


def test_a_checkout_has_its_folders_beside_the_package():
    assert (shipped.templates() / "submit.sh.j2").is_file()
    assert list(shipped.specs().glob("*.yaml"))


def test_an_installed_package_has_them_inside(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "specc"
    (package / "templates").mkdir(parents=True)
    (package.parent / "templates").mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert shipped.templates() == package / "templates"


def test_a_broken_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "specc")
    with pytest.raises(FileNotFoundError, match="has no folder `specs`; install it again"):
        shipped.specs()
