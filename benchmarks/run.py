# SPDX-License-Identifier: Apache-2.0
"""Every benchmark that one GPU can run, one after another: results, a report of their tables, and a plot.

    python -m benchmarks.run FOLDER [--benchmarks attention,mla,problems,elementwise,...]

FOLDER gets NAME.json and NAME.log of each benchmark, report.md and attention.svg. One whose tool is not there is left
out, and so is the plot without matplotlib; both are said. The exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from .report import table

BENCHMARKS = {  # modules and arguments, and where their tables stand (report/table.py)
    "attention": (("benchmarks.kernels.attention", "--sweeps"), "tables"),
    "mla": (("benchmarks.kernels.mla",), "mla"),
    "problems": (("benchmarks.kernels.problems",), "problems"),
    "elementwise": (("benchmarks.kernels.elementwise", "--tokens", "8192"), "elementwise"),
    "counters": (("benchmarks.kernels.counters",), "counters"),
    "serving": (("benchmarks.serving", "--budget", "3600"), None),
    "bench": (("benchmarks.serving", "--sections", "bench", "--budget", "3600"), "bench"),
}


def missing(name: str) -> str | None:
    """Why a benchmark cannot run here, or None."""
    if name == "counters" and shutil.which("ncu") is None:
        return "ncu is not on the PATH; it comes with NVIDIA's CUDA toolkit (Nsight Compute)"
    if name in ("serving", "bench") and importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    return None


def run(name: str, folder: Path) -> bool:
    """Run a benchmark, its output to a file and here; whether it ended well."""
    (module, *arguments), _ = BENCHMARKS[name]
    command = [sys.executable, "-m", module, *arguments, "--out", str(folder / f"{name}.json")]
    with (
        (folder / f"{name}.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        for line in process.stdout or ():
            print(line, end="", flush=True)
            log.write(line)
    return process.returncode == 0


def report(folder: Path, names: list[str]) -> None:
    """Tables of the benchmarks' results, and the plot of attention's."""
    document = folder / "report.md"
    document.write_text("# Benchmarks\n")
    for name in names:
        marker, results = BENCHMARKS[name][1], folder / f"{name}.json"
        if marker is not None and results.exists():
            with document.open("a") as text:
                text.write(f"\n## {name}\n\n<!-- {marker} -->\n<!-- /{marker} -->\n")
            table.main(str(results), str(document))
    if "attention" in names:
        if importlib.util.find_spec("matplotlib") is None:
            print("no plot: matplotlib is not installed")
        else:
            from .report import plot

            plot.main(str(folder / "attention.json"), str(folder / "attention.svg"))


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results go")
    parser.add_argument("--benchmarks", default=",".join(BENCHMARKS))
    arguments = parser.parse_args()
    names = arguments.benchmarks.split(",")
    if unknown := set(names) - BENCHMARKS.keys():
        parser.error(f"--benchmarks has {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    done, failed = list[str](), list[str]()
    for name in names:
        if why := missing(name):
            print(f"{name}: left out: {why}", flush=True)
        else:
            (done if run(name, arguments.folder) else failed).append(name)
    report(arguments.folder, done)
    print(f"done: {', '.join(done) or 'nothing'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
