# SPDX-License-Identifier: Apache-2.0
"""The kernels on the CPU target, on one thread and on more: do threads help?

    python -m benchmarks.kernels.cpu [--threads 1 2 ...]

The CPU target runs the GPU kernels' source, to test it; it is measured so that testing stays bearable. Every time is
the best of several calls, since whatever else runs on the machine can only add to it. What a vLLM engine makes of it:
`python -m benchmarks.serving --sections throughput`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch

from rocmforge_plugin import _C, ops

from . import attention_peers, elementwise_peers
from .attention_cases import Case, Inputs, sampled_error
from .elementwise_cases import BOTH, KINDS, MODELS, NORM, Batch, Mask

CASES = (Case("decode b8 ctx1k 32/2", (1024,) * 8, 1, 32, 2), Case("prefill 1x512 32/2", (512,), 512, 32, 2))
TOKENS, MASK = 1024, (8, 512, 1024)
SECONDS, WRONG = 0.5, 0.02  # of a measurement; relative error


def best_ms(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest call within SECONDS; at least two are made."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def check(name: str, error: float) -> None:
    """Ends the benchmark on a wrong result."""
    if not error <= WRONG:
        raise SystemExit(f"{name}: the result is wrong by {error:.1e}")


def attention(case: Case) -> Callable[[], float]:
    """Time of a call; a plan is made for the threads that there are."""
    inputs = Inputs(case, 0, "cpu")

    def measure() -> float:
        took = best_ms(attention_peers.ours(case, [inputs])[0])
        check(case.name, sampled_error(case, inputs))
        return took

    return measure


def elementwise(kind: str) -> Callable[[], float]:
    """Of one of KINDS, in GLM-4-9B's shape."""
    batch, call = Batch(MODELS[0], TOKENS, "cpu"), elementwise_peers.ours(kind)

    def measure() -> float:
        batch.reset()
        check(kind, batch.error(kind, call(batch)))
        return best_ms(lambda: call(batch))

    return measure


def causal_mask() -> float:
    """Time of a call."""
    mask = Mask(MASK, "cpu")
    took = best_ms(lambda: ops.causal_mask(mask.scores, mask.cache_len))
    check("causal mask", mask.error())
    return took


def main() -> None:
    """Run every case with every number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, max(1, cores // 2), cores])
    threads = sorted(set(parser.parse_args().threads))
    measures = {case.name: attention(case) for case in CASES}
    measures |= {f"{kind}, {TOKENS} tokens": elementwise(kind) for kind in KINDS if kind in (BOTH, NORM)}
    measures["causal mask " + "x".join(map(str, MASK))] = causal_mask
    print(f"{cores} cores; ms on " + ", ".join(f"{n} thread{'s' * (n > 1)}" for n in threads) + " (speed-up)")
    for name, measure in measures.items():
        times = {}
        for n in reversed(threads):  # plans deal work out to as many as there were when the device was first used
            torch.set_num_threads(n)
            _C.set_cpu_threads(n)
            times[n] = measure()
        first = times[threads[0]]
        print(f"{name:40}" + "".join(f"{times[n]:10.3f} ({first / times[n]:4.2f}x)" for n in threads), flush=True)


if __name__ == "__main__":
    main()
