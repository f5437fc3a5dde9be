# SPDX-License-Identifier: Apache-2.0
"""The cache that all builds of a user share: where it is, what it recognises, and builds that use it at one time."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rocmforge_build import BuildError, build, cache, toolchain, work
from rocmforge_build.cache import Cache, folder_for
from rocmforge_build.jobs import Job, Runner

from .conftest import REPOSITORY, make_tree

NAME, OTHER = f"{'ab' * 32}.o", f"{'cd' * 32}.o"  # of results
MODULE = """
#include <pybind11/pybind11.h>
PYBIND11_MODULE(_C, m) { m.attr("interface") = ROCMFORGE_INTERFACE; }
"""


def with_module(root: Path) -> Path:
    """A toy tree with a host module."""
    make_tree(root)
    (root / "csrc").mkdir()
    (root / "csrc" / "module.cpp").write_text(MODULE)
    return root


def job(name: str, *command: str) -> Job:
    return Job("cpu", name, "toy", command, (), ".o")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and nothing else that would say where the cache is."""
    for name in ("ROCMFORGE_CACHE", "XDG_CACHE_HOME", "ROCMFORGE_TARGETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_clones_share_the_users_cache(home: Path, tmp_path: Path) -> None:
    reports = [
        build(root / "package", root=root, targets=["cpu"], extension=False)
        for root in (make_tree(tmp_path / "one"), make_tree(tmp_path / "two"))
    ]
    assert [report.compiled for report in reports] == [4, 0]
    assert list((home / ".cache" / "rocmforge").glob("*.so"))
    assert not (tmp_path / "one" / "build" / "cache").exists()


def test_variables_say_where_it_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert folder_for(tmp_path, pytest.fail) == home / ".cache" / "rocmforge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder_for(tmp_path, pytest.fail) == tmp_path / "xdg" / "rocmforge"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROCMFORGE_CACHE", "named")
    assert folder_for(tmp_path, pytest.fail) == tmp_path / "named"


def test_a_home_that_cannot_be_written_is_said(home: Path, tmp_path: Path) -> None:
    home.write_text("a file, where root could write into a folder without write bits\n")
    lines: list[str] = []
    assert folder_for(tmp_path / "tree", lines.append) == tmp_path / "tree" / "build" / "cache"
    (line,) = lines
    assert re.search(rf"cannot be written \(.*{home}.*\): results are kept in .*build/cache", line)


def test_a_cache_that_was_asked_for_must_be_writable(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("")
    monkeypatch.setenv("ROCMFORGE_CACHE", str(home / "cache"))
    with pytest.raises(BuildError, match=f"ROCMFORGE_CACHE={home}/cache cannot be written"):
        build(tmp_path / "package", root=make_tree(tmp_path / "tree"), targets=["cpu"], extension=False)


def test_it_hits_wherever_python_and_the_compiler_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pip's build isolation, where pybind11 lies in another temporary folder each time."""
    import pybind11

    real, headers = toolchain.find_cxx().path, Path(pybind11.get_include())
    monkeypatch.setenv("ROCMFORGE_CACHE", str(tmp_path / "cache"))
    compiled = []
    for number, name in enumerate(("one", "two", "two", "three")):
        prefix = tmp_path / f"prefix{number}"
        shutil.copytree(headers, prefix / "include")
        if name == "three":
            header = prefix / "include" / "pybind11" / "pybind11.h"
            header.write_text(header.read_text() + "// another release\n")
        compiler = prefix / f"g++-{number}"
        compiler.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
        compiler.chmod(0o755)
        monkeypatch.setenv("ROCMFORGE_CXX", str(compiler))
        monkeypatch.setattr(pybind11, "get_include", lambda prefix=prefix: str(prefix / "include"))
        root = with_module(tmp_path / f"tree{number}")
        compiled.append(build(root / "package", root=root, targets=["cpu"]).compiled)
    assert compiled[:3] == [6, 0, 0]  # as four of the toy tree, the module's object and the module
    assert compiled[3] in (1, 2)  # the module's object, and the module if that came out another


def test_the_compilers_own_words_decide_not_its_place(tmp_path: Path) -> None:
    def compiler(name: str, said: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        path.chmod(0o755)
        return toolchain._version(str(path))

    clang = "clang version 22.1\nInstalledDir: /usr/lib/llvm-{}/bin"
    assert compiler("a/clang++", clang.format(1)) == compiler("b/clang++", clang.format(2))
    assert compiler("a/clang++", clang.format(1)) != compiler("b/clang++", clang.format(1).replace("22.1", "22.2"))
    assert compiler("a/g++", "g++ (Debian) 12") == compiler("b/c++", "c++ (Debian) 12")


def test_variables_that_change_a_compilers_output_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = toolchain._version(sys.executable)
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-G")
    assert toolchain._version(sys.executable) != plain


def test_damaged_results_are_made_again(tree: Path) -> None:
    folder = Path(os.environ["ROCMFORGE_CACHE"])

    def compiled() -> int:
        return build(tree / "package", root=tree, targets=["cpu"], extension=False).compiled

    compiled()
    for damage in (
        lambda path: path.write_bytes(b""),
        lambda path: Path(f"{path}.json").write_text("{"),
        lambda path: Path(f"{path}.json").write_text('{"seconds": 1}'),
        Path.unlink,
    ):
        damage(next(folder.glob("*.o")))
        assert compiled() == 1
    assert compiled() == 0


def test_results_of_another_user_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `sudo pip` they cannot be marked as used; the folder is the user's, so a result of their own can."""
    with Cache(tmp_path) as results:
        made = results.temporary(".o")
        made.write_text("x")
        results.keep(NAME, made, 1.0)
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o644
        assert results.find(NAME) is not None

        def refuse(path: Path) -> None:
            raise PermissionError(path)

        monkeypatch.setattr(os, "utime", refuse)
        assert results.find(NAME) is None


def test_what_is_unused_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for name, days, size in (("new.o", 0, 10), ("used.o", 29, 10), ("old.o", 31, 10), ("tmp-cut-off", 0, 10)):
        (tmp_path / name).write_bytes(bytes(size))
        os.utime(tmp_path / name, (now, now - days * 86400))
    with Cache(tmp_path) as results:
        Cache(tmp_path).drop_unused()
        assert (tmp_path / "old.o").exists(), "a build is inside"
    results.drop_unused()
    assert {path.name for path in tmp_path.glob("*.o")} == {"new.o", "used.o"}
    assert not list(tmp_path.glob("tmp-*"))
    monkeypatch.setattr(cache, "_MOST_BYTES", 15)
    results.drop_unused()
    assert [path.name for path in tmp_path.glob("*.o")] == ["new.o"]


HOLD = """
import sys, time
from pathlib import Path
from rocmforge_build.cache import Cache
with Cache(Path(sys.argv[1])) as results, results.claim(sys.argv[2]) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
    made = results.temporary(".o")
    made.write_text("by another build")
    results.keep(sys.argv[2], made, 4.0)
"""


def test_two_builds_do_not_compile_the_same(tmp_path: Path) -> None:
    """What another build has in hand is left to it, everything else goes on; its result is then taken."""
    folder = tmp_path / "cache"
    folder.mkdir()
    write = (sys.executable, "-c", "import sys; open(sys.argv[-1], 'w').write('mine')")
    theirs, mine = job("theirs", *write, "1"), job("mine", *write, "2")
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting") and other.stdin:
            other.stdin.write("\n")
            other.stdin.flush()

    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), theirs.result],
            cwd=REPOSITORY,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other,
        Cache(folder) as results,
    ):
        assert other.stdout and other.stdout.readline() == "True\n"
        runner = Runner(tmp_path, results, 1, say)
        done = runner.run([theirs, mine])
    assert done[theirs].read_text() == "by another build" and done[mine].read_text() == "mine"
    assert [line.split("] ")[-1].split(" (")[0] for line in lines] == [
        "cpu mine",
        "waiting for another build, which compiles cpu theirs",
        "cpu theirs",
    ]
    assert (runner.report.compiled, runner.report.cached) == (1, 1)
    assert runner.report.costs[theirs].seconds == 4.0


def test_a_build_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), NAME],
            cwd=REPOSITORY,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other,
        Cache(tmp_path) as results,
    ):
        assert other.stdout and other.stdout.readline() == "True\n"
        with results.claim(NAME) as mine, results.claim(OTHER) as another:
            assert (mine, another) == (False, True)
        other.kill()
        other.wait()
        with results.claim(NAME) as mine:
            assert mine


def test_builds_of_two_clones_at_one_time_are_both_whole(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import json, sys
        from pathlib import Path
        from rocmforge_build import build
        root = Path(sys.argv[1])
        report = build(root / "package", root=root, targets=["cpu"], extension=False, jobs=2)
        print(json.dumps([report.compiled, report.cached]))
    """)
    roots = [make_tree(tmp_path / name) for name in ("one", "two")]
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(root)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"ROCMFORGE_CACHE": str(tmp_path / "cache")},
        )
        for root in roots
    ]
    counts = [json.loads(each.communicate()[0]) for each in builds]
    assert [each.returncode for each in builds] == [0, 0]
    assert sum(compiled for compiled, _ in counts) == 4 and all(sum(count) == 4 for count in counts)
    one, two = (root / "package" / "_kernels" / "cpu" for root in roots)
    for name in ("kernels.txt", "librocmforge_cpu.so"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_one_install_at_a_time_into_a_tree(tree: Path) -> None:
    """Two builds of one tree may compile at one time; the second puts its files in place after the first."""
    import fcntl

    (tree / "build").mkdir()
    program = (
        "import sys; from pathlib import Path; from rocmforge_build import build\n"
        "root = Path(sys.argv[1]); build(root / 'package', root=root, targets=['cpu'], extension=False)\n"
    )
    with (tree / "build" / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", program, str(tree)], cwd=REPOSITORY) as second:
            results = Cache(Path(os.environ["ROCMFORGE_CACHE"]))
            library = work.plan_work(tree, results, ["cpu"], False, print).library
            assert library is not None
            deadline = time.monotonic() + 120
            while not results.path(library.result).exists():
                assert time.monotonic() < deadline and second.poll() is None
                time.sleep(0.05)
            time.sleep(0.3)
            assert second.poll() is None and not (tree / "package").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.wait(60) == 0
    assert (tree / "package" / "_kernels" / "cpu" / "kernels.txt").exists()
