# SPDX-License-Identifier: Apache-2.0
"""What documents say that the sources know: variables, what is served, links, files and commands."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

import rocmforge_plugin
from rocmforge_plugin import served
from rocmforge_plugin.vllm.backend import eligibility

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("rocmforge_plugin", "rocmforge_build", "csrc", "kernels", "benchmarks", "evals", "tests", "tools", ".ci")
NAME = "ROCMFORGE_[A-Z_]+"


def tracked(*endings: str) -> list[Path]:
    """Files of the repository, or all that are there where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True
    )
    names = (
        listed.stdout.splitlines()
        if listed.returncode == 0
        else [str(path.relative_to(ROOT)) for folder in SOURCES for path in (ROOT / folder).rglob("*")]
    )
    return [ROOT / name for name in names if name.endswith(endings) and (ROOT / name).is_file()]


DOCUMENTS = tracked(".md")


def variables() -> set[str]:
    """Names of environment variables in the sources: quoted in Python, asked of getenv, or expanded by a shell.

    A name that C++ uses outside of strings is a macro, and no variable.
    """
    found, macros = set(), set()
    for path in tracked(".py", ".cpp", ".h", ".hip", ".sh", "Makefile", "run"):
        text = path.read_text(errors="replace")
        if path.suffix == ".py":
            found |= set(re.findall(rf"""["']({NAME})["']""", text))
        elif path.suffix in (".cpp", ".h", ".hip"):
            found |= set(re.findall(rf'getenv\(\s*"({NAME})"', text))
            macros |= set(re.findall(rf"\b{NAME}\b", re.sub(r'"(?:\\.|[^"\\])*"|//.*', "", text)))
        else:
            found |= set(re.findall(rf"\$\(?\{{?({NAME})", text))
    return found - macros


def test_the_table_of_variables_is_that_of_the_sources() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text()
    listed = re.findall(rf"^\| `({NAME})` \|", document, re.MULTILINE)
    assert sorted(listed) == sorted(variables())
    for line in document.splitlines():
        if line.startswith("| `ROCMFORGE_"):
            assert all(cell.strip() for cell in line.strip("|").split("|")), f"an empty cell: {line}"


def test_other_names_of_variables_are_known() -> None:
    """Whatever a document or a message calls by such a name exists."""
    known = {*variables(), "ROCMFORGE_INTERFACE"}  # the latter is a macro that the build defines
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in tracked(".md", ".py", ".toml", ".cpp", "Makefile")
        for name in re.findall(rf"\b({NAME})(?==|`)", path.read_text(errors="replace"))
    }
    assert not {(path, name) for path, name in named if name not in known}


def test_the_readme_says_what_is_served() -> None:
    cells = dict(re.findall(r"^\| ([A-Z][\w ]+) \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert cells["Head sizes"] == eligibility.head_sizes_text()
    assert cells["Query heads per KV head"] == f"1 to {served.MAX_GROUP}"
    assert f"blocks of any multiple of {served.BLOCK_MULTIPLE}," in cells["KV cache"]
    both = set(served.DTYPES["amd"]) & set(served.DTYPES["nvidia"])
    assert set(re.findall(r"\b(?:b?float)\d+", cells["Dtypes"].partition(";")[0])) == both
    assert set(re.findall(r"\bfloat\d+", cells["Dtypes"].partition(";")[2])) == set(served.DTYPES["cpu"]) - both
    status = (ROOT / "README.md").read_text().partition("## Hardware status")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"gfx\w+", status)) == sorted(served.AMD_ARCHS)
    assert set(re.findall(r"sm_\d+", status)) == set(served.NVIDIA_ARCHS)


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == rocmforge_plugin.__version__ and len(set(versions)) == len(versions)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(document: Path) -> None:
    """Its links, the files it names from the root or beside itself, and the modules it runs."""
    text = document.read_text()
    bad = [
        link
        for link in re.findall(r"\]\(([^)#]+)", text)
        if "://" not in link and not (document.parent / link).exists()
    ]
    folders = "|".join([*SOURCES, "docs", "requirements"])
    bad += [
        name
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
        if not (ROOT / name).exists() and name != "rocmforge_plugin/_kernels"
    ]  # which the build makes
    bad += [
        module
        for module in re.findall(r"python3? -m ((?:benchmarks|evals|rocmforge_\w+)[\w.]*)", text)
        if importlib.util.find_spec(module.rstrip(".")) is None
    ]
    bad += re.findall(r"python3? benchmarks/\S+", text)  # they are modules
    assert not bad
