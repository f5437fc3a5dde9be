# SPDX-License-Identifier: Apache-2.0
"""Train one small checkpoint: `python -m evals.train --arch glm4 --minutes 6 --out DIR`.

A first run fits its steps into `--minutes`, to which compiling adds, and prints the counts; `--steps a,b,c` repeats
them anywhere. `--within` bounds both together, by a shorter last phase, where a machine is lent for a time; the checks
at the end come on top.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from . import batches, check, model, optim, shape, tokenizer

#: Row length and share of the training of each phase of the curriculum.
PHASES = ((256, 0.12), (768, 0.20), (2304, 0.68))


def loss_of(network: torch.nn.Module, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross entropy of rows [batch, length + 1]."""
    logits = network(ids[:, :-1])
    each = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    scale = weights[:, 1:].flatten()
    return (each * scale).sum() / scale.sum()


def rate(progress: float, step: int) -> float:
    """Learning-rate factor: short warm-up, plateau, then down to zero over the last 45 %."""
    return min(1.0, (step + 1) / 100, max(0.0, 1 - progress) / 0.45)


def train(args: argparse.Namespace, network: torch.nn.Module, device: str) -> list[int]:
    """Run the curriculum; returns the steps taken in each phase."""
    workers = optim.optimizers(network)
    for worker in workers:
        for group in worker.param_groups:
            group["full"] = group["lr"]
    planned = [int(n) for n in args.steps.split(",")] if args.steps else None
    started, step, done, counts = time.time(), 0, 0.0, []
    for phase, (longest, share) in enumerate(PHASES):
        length = min(longest, args.longest)
        data = batches.loader(args.seed + phase, max(1, args.tokens // length), length, args.workers)
        compute = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
        begun, first, seconds = time.time(), step, args.minutes * 60 * share
        while True:
            # Time already given to earlier phases never shortens this one: each has its own share.
            inside = ((step - first) / planned[phase]) if planned else (time.time() - begun) / seconds
            if inside >= 1:
                break
            ids, weights = (part.to(device, non_blocking=True) for part in next(data))
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = compute(network, ids.long(), weights.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            factor = rate(done + inside * share, step)
            for worker in workers:
                for group in worker.param_groups:
                    group["lr"] = group["full"] * factor
                worker.step()
                worker.zero_grad(set_to_none=True)
            if step % args.every == 0:
                spent = time.time() - started
                print(f"step {step} length {length} loss {loss.item():.4f} rate {factor:.2f} {spent:.0f} s", flush=True)
            if step == first + 2:
                # Compilation of this length is over; it is no part of the phase's share.
                loss.item()
                begun = time.time()
                if phase == len(PHASES) - 1:
                    seconds = min(seconds, max(1.0, args.within * 60 - (begun - started)))
            step += 1
        done += share
        counts.append(step - first)
        print(f"after length {length}: {counts} steps, {time.time() - started:.0f} s", flush=True)
        check_now(network, device, 32, length)
    return counts


def check_now(network: torch.nn.Module, device: str, samples: int, longest: int) -> dict[str, dict[str, float]]:
    """Held-out report in the arithmetic the checkpoint is served in."""
    with torch.autocast(device, dtype=torch.bfloat16):
        return check.report(network, samples, longest)


def save(network: model.Model, folder: Path) -> None:
    """Write a Hugging Face checkpoint: bfloat16 safetensors, config, generation config, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in network.state_dict().items():
        kept = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        tensors[name] = tensor.detach().to("cpu", kept).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = shape.config(network.shape)
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    ends = {"eos_token_id": settings["eos_token_id"], "pad_token_id": settings["pad_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=1) + "\n")
    tokenizer.save(folder)


def agree(network: model.Model, folder: Path) -> float:
    """Largest logit difference from Hugging Face's own model of the saved checkpoint, in float32."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 256, (2, 300), generator=generator)
    with torch.no_grad():
        return float((theirs(ids).logits - network.cpu().float()(ids)).abs().max())


def main() -> None:
    """Train, round to bfloat16, check, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=tuple(shape.ARCHITECTURES), default="glm4")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--within", type=float, default=math.inf, help="minutes of training with compiling, at most")
    parser.add_argument("--steps", default="", help="steps of each phase, as the log of a run gives them")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens of a batch")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--ff", type=int, default=512)
    parser.add_argument("--longest", type=int, default=1 << 30, help="cap on the row length (for a quick trial)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--samples", type=int, default=256, help="items of a cell of the last report")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = shape.shape(args.arch, args.hidden, args.ff)
    network = model.Model(sizes).to(device)
    count = sum(p.numel() for p in network.parameters())
    print(f"{asdict(sizes)}\n{count} parameters, {2 * count / 2**20:.2f} MiB in bf16, torch {torch.__version__}")
    counts = train(args, network, device)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    print(f"rounded to bfloat16; repeat with --steps {','.join(map(str, counts))}", flush=True)
    folder = args.out / f"{args.arch.replace('_', '-')}-tiny"
    save(network, folder)
    found = check_now(network, device, args.samples, args.longest)
    (folder / "accuracy.json").write_text(json.dumps(found, indent=1) + "\n")
    difference = agree(network, folder)
    print(f"largest logit difference from transformers in float32: {difference:.2e}")
    if not math.isfinite(difference) or difference > 1e-2:
        raise SystemExit("the checkpoint does not compute what was trained")


if __name__ == "__main__":
    main()
