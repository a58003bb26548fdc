"""Trains the model on this repository's documentation: takes seconds, and gives the same weights each time on one machine."""

import argparse
import glob
import pathlib
import sys
import time

print("loading PyTorch", flush=True)  # from a cold disk this takes a minute
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

here = pathlib.Path(__file__).parent
sys.path.insert(0, str(here / "app"))
import model  # noqa: E402

arguments = argparse.ArgumentParser()
arguments.add_argument("--steps", type=int, default=200)
arguments.add_argument("--out", default=str(here / "weights" / "model.safetensors"))
options = arguments.parse_args()

torch.manual_seed(1)
torch.set_num_threads(1)  # with more, the order of additions and so the weights would depend on the number of cores
files = sorted(glob.glob(str(here.parent.parent / "docs" / "adr" / "*.md")))
text = "".join(open(f, encoding="utf-8").read() for f in files)
text = "".join(c for c in text if c.isascii())
net = model.Model("".join(sorted(set(text))))
tokens = torch.tensor(net.encode(text))
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
begin = said = time.monotonic()
for step in range(options.steps):
    at = torch.randint(len(tokens) - model.CONTEXT - 1, (12,))
    x = torch.stack([tokens[i : i + model.CONTEXT] for i in at])
    y = torch.stack([tokens[i + 1 : i + model.CONTEXT + 1] for i in at])
    loss = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if time.monotonic() - said > 2:
        said = time.monotonic()
        print(f"step {step + 1} of {options.steps}, loss {loss.item():.2f}", flush=True)
pathlib.Path(options.out).parent.mkdir(exist_ok=True)
model.save(net, options.out)
print(f"trained on {len(text)} characters for {options.steps} steps in {time.monotonic() - begin:.1f} s, loss {loss.item():.2f}: {options.out}")
