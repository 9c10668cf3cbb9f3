"""Train a torch model on the triplets of a run: the rows of a table are a dataset that a DataLoader takes as it is.

usage: python examples/train_a_model.py RUN_FOLDER [STEPS]
"""

import sys

import torch

import rasura

SIDE = 64
if len(sys.argv) not in (2, 3) or not all(steps.isdigit() for steps in sys.argv[2:]):
    sys.exit(__doc__)
rows, steps = rasura.open_run(sys.argv[1]).table("captured"), int((sys.argv[2:] or ["20"])[0])


def collate(batch):
    """Rows to tensors in [0, 1]: (n, 4, SIDE, SIDE) picture and mask, (n, 3, SIDE, SIDE) target."""

    def resize(array):
        tensor = torch.as_tensor(array.copy(), dtype=torch.float32)
        tensor = tensor.permute(2, 0, 1) / 255 if tensor.ndim == 3 else tensor[None]
        return torch.nn.functional.interpolate(tensor[None], (SIDE, SIDE), mode="area")[0]

    inputs = torch.stack([torch.cat([resize(row["source"]), resize(row["mask"])]) for row in batch])
    return inputs, torch.stack([resize(row["target"]) for row in batch])


loader = torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True, collate_fn=collate)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(4, 32, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(32, 3, 5, padding=2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(steps):
    inputs, targets = next(iter(loader))
    loss = (model(inputs) + inputs[:, :3] - targets).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step + 1} of {steps}: loss {loss.item():.4f}")
