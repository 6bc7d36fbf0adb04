"""What counts as an answer about dependencies; the wheel is the same wherever it is built."""

from __future__ import annotations

import hashlib
import shutil
import zipfile

import pytest

from tests.experiments import supply_chain


def test_packages_that_no_index_knows_are_not_called_safe(capsys):
    unknown = [{"name": n, "skip_reason": "not found"} for n in ("a", "b")]
    assert supply_chain.judge_audit({"dependencies": unknown}) == 0
    assert "skipped: no index answered for any of 2 packages" in capsys.readouterr().out


def test_a_known_vulnerability_fails_and_is_named(capsys):
    safe = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
    unknown = {"name": "c", "skip_reason": "not found"}
    assert supply_chain.judge_audit({"dependencies": [safe, unknown]}) == 0
    assert "1 of 2 packages known, 0 with" in capsys.readouterr().out
    assert supply_chain.judge_audit({"dependencies": [safe, bad]}) == 1
    assert "b 2: CVE-1; fixed: 2.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "is_allowed"),
    [
        ("Apache Software License", True),
        ("BSD-3-Clause", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("GPL-3.0-only", False),
        ("GNU General Public License v2 (GPLv2)", False),
        ("MIT AND AGPL-3.0-only", False),
        ("Other/Proprietary License", False),
        ("UNKNOWN", False),
    ],
)
def test_licences_off_the_list_are_refused(said, is_allowed):
    package = {"Name": "a", "Version": "1", "License-Classifier": said, "License-Metadata": said}
    assert bool(supply_chain.judge_licences([package])) != is_allowed


def test_the_lock_is_read_for_this_platform():
    found = supply_chain.locked()
    assert {"jax", "numpy", "orbax-checkpoint"} <= found.keys()
    assert "appnope" not in found or __import__("sys").platform == "darwin"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_wheel_is_the_same_bytes_wherever_it_is_built(tmp_path):
    if not (supply_chain.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    built = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        built.append(supply_chain.build_wheel(tmp_path / place, 1_700_000_000))
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in built}) == 1
    names = zipfile.ZipFile(built[0]).namelist()
    assert "malloc_game/py.typed" in names and "agent/learning/pretrained/agent.msgpack" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
