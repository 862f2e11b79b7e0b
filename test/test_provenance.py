# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import re
import subprocess
import sys

from fedefm_core import provenance as module
from fedefm_core.config import Settings, settings_sha256
from fedefm_core.provenance import file_sha256, git_revision, provenance


class Example(Settings):
    rate: float = 0.5


def test_is_json_and_names_what_matters():
    record = json.loads(json.dumps(provenance(Example(), seed=7)))
    assert record["settings"] == {"rate": 0.5}
    assert record["settings_sha256"] == settings_sha256(Example())
    assert record["seed"] == 7
    assert "numpy" in record["versions"]
    assert record["cpu_count"] >= 1


def test_without_settings_has_no_settings():
    assert "settings" not in provenance()
    assert "seed" not in provenance()


def test_git_revision_is_a_commit_or_empty():
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", git_revision())


def test_no_git_checkout_and_no_git_are_no_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "fedefm_core" / "provenance.py"))
    assert git_revision() == ""
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert git_revision() == ""


def test_file_sha256(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_importing_it_loads_no_torch():
    code = "import sys, fedefm_core.provenance; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
