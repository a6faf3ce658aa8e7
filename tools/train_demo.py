"""Train the demo's dense network from scratch and write the weights that are shipped.

    python tools/train_demo.py [--out edgeprune/workload/demo.safetensors] [--threads 2]

The first epochs see the scenes scaled down, which costs less and settles the coarse shapes. The same seed and thread
count give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from edgeprune.training.batchnorm import re_estimate_batchnorm
from edgeprune.workload import demo
from edgeprune.workload.demo_scenes import SIZE

SIDES = [40] * 4 + [52] * 3 + [64] * 5  # pixels, one per epoch
BATCH = 32
PEAK_RATE = 0.08
SHIFT = 4  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=demo.WEIGHTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(options.seed, options.out)
    save(model, options.out)
    print(f"validation accuracy {accuracy(model, 'validation'):.4f}, test {accuracy(model, 'test'):.4f}")


def train(seed: int, out: Path) -> nn.Module:
    """The dense network after all epochs, in eval mode; `out` gets the weights after each."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = demo.demo_network().to(memory_format=torch.channels_last)
    x, y = tensors("train")
    steps = len(y) // BATCH
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, len(SIDES) * steps, pct_start=0.25)
    for epoch, side in enumerate(SIDES):
        started, right, total = time.perf_counter(), 0, 0.0
        model.train()
        order = torch.randperm(len(y), generator=generator)
        for batch in order[: steps * BATCH].split(BATCH):
            logits = model(smaller(shifted(x[batch], generator), side))
            loss = nn.functional.cross_entropy(logits, y[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
            right += int((logits.argmax(1) == y[batch]).sum())
        share = right / (steps * BATCH)
        seconds = time.perf_counter() - started
        print(
            f"epoch {epoch} at {side} px: loss {total / steps:.3f}, train accuracy {share:.3f}, {seconds:.0f} s",
            end="",
        )
        if side == SIZE:
            re_estimate_batchnorm(model, iter(x[order[:1024]].split(128)))
            print(f", validation {accuracy(model, 'validation'):.4f}", end="")
        print(flush=True)
        save(model, out)
    return model.eval()


def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    samples = demo.demo_scenes(split, demo.SCENES[split])
    return samples.x.to(memory_format=torch.channels_last), samples.y


def shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    dx, dy = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def smaller(x: torch.Tensor, side: int) -> torch.Tensor:
    if side == SIZE:
        return x
    return nn.functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)


@torch.no_grad()
def accuracy(model: nn.Module, split: str) -> float:
    model.eval()
    x, y = tensors(split)
    guesses = torch.cat([model(batch).argmax(1) for batch in x.split(100)])
    return float((guesses == y).float().mean())


def save(model: nn.Module, out: Path) -> None:
    """Matrices in half precision, the few numbers per channel in full."""
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({k: v.half() if v.ndim > 1 else v for k, v in state.items()}, out)


if __name__ == "__main__":
    main()
