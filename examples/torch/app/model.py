"""A small character-level transformer, and its weights in the safetensors format."""

import json
import math
import mmap
import struct

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, LAYERS, HEADS, CONTEXT = 64, 2, 4, 48


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (p.view(batch, length, HEADS, -1).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(WIDTH, 2))
        weights = (q @ k.transpose(-2, -1)) / math.sqrt(WIDTH // HEADS)
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        attended = weights.masked_fill(future, float("-inf")).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.characters = characters
        self.index = {c: i for i, c in enumerate(characters)}
        self.token = nn.Embedding(len(characters), WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens):
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.token.weight.T

    def encode(self, text):
        return [self.index[c] for c in text if c in self.index]

    @torch.inference_mode()
    def stream(self, prompt, count, temperature, seed):
        """Yields the characters one by one."""
        generator = torch.Generator().manual_seed(seed)
        tokens = self.encode(prompt) or self.encode(" ")
        for _ in range(count):
            scores = self(torch.tensor([tokens[-CONTEXT:]]))[0, -1]
            if temperature == 0:
                tokens.append(int(scores.argmax()))
            else:
                tokens.append(int(torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)))
            yield self.characters[tokens[-1]]


def save(model, path):
    """Writes safetensors (github.com/huggingface/safetensors, Format): a length, a JSON header, the tensors."""
    header, bodies, at = {"__metadata__": {"characters": model.characters}}, [], 0
    for name, tensor in sorted(model.state_dict().items()):
        body = tensor.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    raw = json.dumps(header, sort_keys=True).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw + b"".join(bodies))


def load(path):
    """Maps the weights: replicas share their pages, and nothing is copied."""
    with open(path, "rb") as f:
        mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack("<Q", mapped[:8])
    header = json.loads(mapped[8 : 8 + length])
    model = Model(header.pop("__metadata__")["characters"])
    state = {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        state[name] = torch.frombuffer(mapped, dtype=torch.float32, count=(end - begin) // 4, offset=8 + length + begin).view(tensor["shape"])
    for name, parameter in model.named_parameters():
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], nn.Parameter(state[name], requires_grad=False))
    return model.eval()
