"""What an error proposes to install: from where srdeploy came, and beside what is installed."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from sr_deploy.core.host.install import pip_install


class Installed:
    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


def installed(monkeypatch, origin, torch=None):
    def version(name):
        if torch is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return torch

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_clone_is_named_by_its_folder(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    installed(monkeypatch, json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}))
    assert pip_install("remote") == f'pip install "{tmp_path}[remote]"'
    (tmp_path / "pyproject.toml").unlink()
    assert pip_install("remote") == 'pip install "srdeploy[remote]"'


@pytest.mark.parametrize("origin", [None, "", "[]", "{", '{"url": "x.whl"}'])
def test_else_by_its_name(monkeypatch, origin):
    installed(monkeypatch, origin)
    assert pip_install("zoo") == 'pip install "srdeploy[zoo]"'


def test_a_repository_is_named(monkeypatch):
    installed(monkeypatch, json.dumps({"url": "https://example.org/a.git", "vcs_info": {"vcs": "git"}}))
    assert pip_install("remote") == 'pip install "srdeploy[remote] @ git+https://example.org/a.git"'


def test_the_installed_torch_is_kept(monkeypatch):
    installed(monkeypatch, None, torch="2.10.0+cu126")
    assert pip_install("zoo").endswith(' "torch==2.10.0+cu126"') and "torch" not in pip_install("remote")
