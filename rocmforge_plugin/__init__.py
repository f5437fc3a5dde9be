# SPDX-License-Identifier: Apache-2.0
"""rocmforge: HIP kernels for attention, position embedding and the paged KV cache, as a vLLM plugin.

Importing this package loads neither vLLM nor the compiled module and needs no GPU; both are loaded by what uses them.
The operations are in `rocmforge_plugin.ops` and work without vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__version__ = "0.2.0"
__all__ = ["__version__", "launches", "platform", "register", "reset_launches", "summary"]


def launches() -> dict[str, int]:
    """Kernel launches so far in this process, by kernel name; a captured graph's launches count when it is captured."""
    from rocmforge_plugin import device

    return device.launches()


def reset_launches() -> None:
    """Set all launch counts of this process to zero."""
    from rocmforge_plugin import device

    device.reset_launches()


def summary(torch_device: torch.device | str) -> str:
    """One line: version, target, device and built kernel variants.

    Raises:
        ImportError: the compiled module is missing.
        DeviceError: there is no such device, or no kernels are built for it.
    """
    from rocmforge_plugin import device

    return f"rocmforge {__version__}: {device.summary(torch_device)}"


def register() -> None:
    """Entry point `vllm.general_plugins`: the attention backends, the position layer and the model classes."""
    from rocmforge_plugin.vllm import register as implementation

    implementation.register()


def platform() -> None:
    """Entry point `vllm.platform_plugins`: the backends' names, early enough; vLLM's platform stays its own."""
    from rocmforge_plugin.vllm import register as implementation

    implementation.platform()
