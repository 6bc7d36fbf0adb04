"""What this project is made of: known vulnerabilities, licences, a bill of materials, its wheel.

    python -m tests.supply_chain audit | licences | sbom | wheel

Each is a target of the Makefile. The work is done by pip-audit, pip-licenses, cyclonedx-py and pip;
here is what they are asked, and what counts as an answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.paths import ROOT

LOCK = ROOT / "requirements.lock"
BUILD, DIST = ROOT / "build", ROOT / "dist"
BIN = pathlib.Path(sys.executable).parent
AUDIT_SECONDS = 300

# What a dependency may be licensed under: permissive, or with a copyleft that ends at its own files
# (MPL) or that linking does not pass on (LGPL). Parts of what package metadata says.
ALLOWED = re.compile(
    r"Apache|\bMIT\b|MIT-CMU|HPND|BSD|Python Software Foundation|\bPSF|\bISC\b|ISCL|\bZlib\b|"
    r"MPL|Mozilla Public License|Unlicense|Public Domain|\b0BSD\b|LGPL|CC0|BSL-1\.0",
    re.IGNORECASE,
)
DENIED = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public|Proprietary|Commercial", re.I)
# Said of packages whose metadata does not, or not in such words; with what was read instead.
KNOWN = {
    "libtpu": "Google's terms, in the package: the compiler itself, see README.md",
    "pgx": "Apache-2.0, by the LICENSE in the package",
}


def locked() -> dict[str, str]:
    """Names and versions in the lock that this interpreter and platform need."""
    text = re.sub(r"^\s*#.*\n", "", LOCK.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = {}
    for line in filter(str.strip, text.splitlines()):
        requirement = Requirement(line.split("--hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = pin.version
    return found


def _skip(what: str, why: str) -> int:
    print(f"{what}: skipped: {why}")
    return 0


def _tool(name: str) -> str | None:
    path = BIN / name
    return str(path) if path.exists() else shutil.which(name)


# --- known vulnerabilities --------------------------------------------------------------------


def audit() -> int:
    """Asks for known vulnerabilities of every package in the lock."""
    tool = _tool("pip-audit")
    if tool is None:
        return _skip("audit", "pip-audit is not installed: make setup")
    with tempfile.TemporaryDirectory() as folder:
        answer = pathlib.Path(folder) / "audit.json"
        command = [tool, "--requirement", LOCK, "--disable-pip", "--no-deps", "--timeout", "10",
                   "--progress-spinner", "off", "--format", "json", "--output", answer]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return _skip("audit", f"no answer within {AUDIT_SECONDS} s")
        if not answer.exists():
            return _skip("audit", (done.stderr.strip().splitlines() or ["no answer"])[-1][:200])
        return judge_audit(json.loads(answer.read_text()))


def judge_audit(answer: dict[str, Any]) -> int:
    """pip-audit's answer in a few lines. What no service knew anything of is not called safe."""
    packages = answer["dependencies"]
    unknown = [p for p in packages if "skip_reason" in p]
    if len(unknown) == len(packages):
        return _skip("audit", f"no index answered for any of {len(packages)} packages")
    for package in packages:
        for found in package.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"]) or "nothing yet"
            print(f"audit: {package['name']} {package['version']}: {found['id']}; fixed: {fixed}")
    vulnerable = sum(bool(p.get("vulns")) for p in packages)
    print(
        f"audit: {len(packages) - len(unknown)} of {len(packages)} packages known,"
        f" {vulnerable} with known vulnerabilities"
    )
    return int(vulnerable > 0)


# --- licences ---------------------------------------------------------------------------------


def licences() -> int:
    """Checks the licence of every locked package that is installed against `ALLOWED`."""
    tool = _tool("pip-licenses")
    if tool is None:
        return _skip("licences", "pip-licenses is not installed: make setup")
    command = [tool, "--from=all", "--format=json", f"--python={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    installed = {canonicalize_name(p["Name"]): p for p in json.loads(done.stdout)}
    there = [installed[name] for name in sorted(locked()) if name in installed]
    refused = judge_licences(there)
    for line in refused:
        print(f"licences: {line}")
    print(f"licences: {len(there) - len(refused)} of {len(there)} packages are on the allow list")
    return int(bool(refused))


def judge_licences(packages: Iterable[dict[str, str]]) -> list[str]:
    """Those packages whose metadata names no allowed licence, or one that is not, a line each."""
    refused = []
    for package in packages:
        texts = [text for key, text in package.items() if key.startswith("License")]
        said = "; ".join(" ".join(text.split())[:200] for text in texts if text != "UNKNOWN")
        is_allowed = bool(ALLOWED.search(said)) and not DENIED.search(said)
        if not is_allowed and canonicalize_name(package["Name"]) not in KNOWN:
            refused.append(f"{package['Name']} {package['Version']}: {said or 'says nothing'}")
    return refused


# --- bill of materials ------------------------------------------------------------------------


def sbom() -> int:
    """Writes build/sbom.json: what the lock pins, with hashes, in CycloneDX's format."""
    tool = _tool("cyclonedx-py")
    if tool is None:
        return _skip("sbom", "cyclonedx-bom is not installed: make setup")
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "sbom.json"
    command = [tool, "requirements", LOCK, "--pyproject", ROOT / "pyproject.toml",
               "--output-reproducible", "--of", "JSON", "--output-file", path]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    count = len(json.loads(path.read_text())["components"])
    print(f"sbom: {path.relative_to(ROOT)}: {count} components")
    return 0


# --- the wheel --------------------------------------------------------------------------------


def build_wheel(out: pathlib.Path, epoch: int) -> pathlib.Path:
    """Builds the wheel from a copy of what git tracks. epoch: the time of the files in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                copy = pathlib.Path(folder, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                   "--no-index", "--disable-pip-version-check", "-w", out, folder]  # fmt: skip
        subprocess.run(command, check=True, env=environment, capture_output=True)
    (wheel,) = out.glob("mallocgame-*.whl")
    return wheel


def wheel() -> int:
    """Builds the wheel twice, in different places; it goes to dist/ if both are the same bytes."""
    log = ["git", "log", "-1", "--format=%ct"]
    time = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        built = [build_wheel(pathlib.Path(each), epoch) for each in (one, other)]
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in built]
        if hashes[0] != hashes[1]:
            print(f"wheel: two builds differ: {hashes[0]} and {hashes[1]}", file=sys.stderr)
            return 1
        DIST.mkdir(exist_ok=True)
        shutil.copyfile(built[0], DIST / built[0].name)
    print(f"wheel: dist/{built[0].name}: sha256 {hashes[0]}, twice (SOURCE_DATE_EPOCH={epoch})")
    return 0


COMMANDS = {"audit": audit, "licences": licences, "sbom": sbom, "wheel": wheel}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m tests.experiments.supply_chain {' | '.join(COMMANDS)}")
    sys.exit(COMMANDS[sys.argv[1]]())
