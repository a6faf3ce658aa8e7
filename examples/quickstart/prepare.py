"""Writes train.npz and w.safetensors, which are checked in: handwritten digits and weights trained on them.

    python prepare.py

The digits are scikit-learn's, enlarged to 16x16; `x` is uint8 (n, 16, 16), `y` the label. Takes a minute.
"""

from pathlib import Path

import numpy as np
import torch
from nets import make
from safetensors.torch import save_file
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
EPOCHS = 12


def main() -> None:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = np.kron(digits.images[order], np.ones((2, 2))) * (255 / 16)
    x, y = x.round().astype(np.uint8), digits.target[order].astype(np.int64)
    train, test = slice(0, 1300), slice(1300, None)
    np.savez_compressed(HERE / "train.npz", x=x[train], y=y[train], x_test=x[test], y_test=y[test])

    torch.manual_seed(0)
    model = make()
    inputs, labels = torch.from_numpy(x[train]).float()[:, None] / 255, torch.from_numpy(y[train])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * (len(labels) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(64):
            if len(batch) == 64:
                shift = torch.randint(-1, 2, (2,)).tolist()
                loss = torch.nn.functional.cross_entropy(model(inputs[batch].roll(shift, (2, 3))), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(x[test]).float()[:, None] / 255).argmax(1).numpy()
    print(f"accuracy {np.mean(found == y[test]):.4f} on {len(found)} test images")
    save_file(model.state_dict(), HERE / "w.safetensors")


if __name__ == "__main__":
    main()
