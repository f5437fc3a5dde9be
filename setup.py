# SPDX-License-Identifier: Apache-2.0
"""Hooks the build driver into setuptools; everything else stands in pyproject.toml."""

import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build frontend does not put the source tree there

from rocmforge_build import BuildError, build  # noqa: E402


class BuildKernels(build_ext):
    """Compiles the kernels and the host module into the package: the source tree's one for an editable install."""

    def run(self) -> None:
        inplace = self.inplace or self.editable_mode
        package = (ROOT if inplace else Path(self.build_lib).resolve()) / "rocmforge_plugin"
        if not inplace:
            # The wheel holds what this build made, not what an earlier one with other targets left in build/.
            shutil.rmtree(package / "_kernels", ignore_errors=True)
        try:
            build(package)
        except BuildError as error:
            raise CompileError(str(error)) from error


class PackEvaluation(build_py):
    """Puts the evaluation's tasks and small checkpoints into the wheel; a checkout reads them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for part in ("tasks", "checkpoints"):
            target = Path(self.build_lib) / "rocmforge_plugin" / "evaluate" / "data" / part
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "evals" / part, target, ignore=shutil.ignore_patterns("__pycache__"))


# The empty extension marks the wheel as built for this platform and Python; BuildKernels makes its file.
setup(
    ext_modules=[Extension("rocmforge_plugin._C", sources=[])],
    cmdclass={"build_ext": BuildKernels, "build_py": PackEvaluation},
)
