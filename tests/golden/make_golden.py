"""Golden values for the C++ tests, from small vision transformers in plain PyTorch: make_golden.py [FOLDER].

Writes dense.h5, switch.h5, random.h5 and optimizers.h5. Parameters and images are drawn, rounded to float32, and all
arithmetic is then in float64; results are stored as float32. No dropout, no augmentation.
"""

import pathlib
import re
import sys

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

IMAGE, CHANNELS, PATCH, CLASSES = 8, 3, 4, 5
WIDTH, HEADS, LAYERS, HIDDEN, EXPERTS = 12, 3, 2, 20, 4
POSITIONS = 7  # rows of the table; the first (IMAGE / PATCH)^2 are used
BATCH, MICROBATCH = 8, 4
BALANCE = 0.01  # alpha of the balance loss
RANDOM_EXPERT = 2  # the one that every token of every layer takes in random.h5
SEED = 554  # gives switch.h5 clear routes, work for every expert, and a microbatch without any for one
MIN_MARGIN = 0.02  # between a token's two best gate probabilities: rounding must not change a route


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):  # (samples, tokens, width)
        samples, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(samples, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        p = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, dim=-1)
        return self.output((p @ v).transpose(1, 2).reshape(samples, tokens, WIDTH))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Linear(WIDTH, HIDDEN)
        self.w2 = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return self.w2(functional.gelu(self.w1(x)))


class Block(nn.Module):
    """Pre-norm; the feed-forward part is one network (dense), or one of EXPERTS for each token."""

    def __init__(self, router):
        super().__init__()
        self.router = router
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        if router == "dense":
            self.ffn = FeedForward()
        else:
            self.experts = nn.ModuleList(FeedForward() for _ in range(EXPERTS))
        if router == "switch":
            self.gate = nn.Linear(WIDTH, EXPERTS)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))

    def feed_forward(self, x):
        if self.router == "dense":
            return self.ffn(x)
        if self.router == "random":
            return self.experts[RANDOM_EXPERT](x)
        p = torch.softmax(self.gate(x), dim=-1)  # (samples, tokens, experts)
        weight, self.chosen = p.max(dim=-1)
        one_hot = functional.one_hot(self.chosen, EXPERTS).to(p)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)  # (samples, tokens, experts, width)
        # Switch Transformer (Fedus et al., 2101.03961), equations 4 to 6: f has no gradient.
        fraction, probability = one_hot.mean(dim=(0, 1)), p.mean(dim=(0, 1))
        self.balance_loss = BALANCE * EXPERTS * (fraction * probability).sum()
        best = p.detach().topk(2, dim=-1).values
        self.margin = (best[..., 0] - best[..., 1]).min().item()
        return weight.unsqueeze(-1) * (one_hot.unsqueeze(-1) * outputs).sum(dim=-2)


class Transformer(nn.Module):
    def __init__(self, router, head_hidden):
        super().__init__()
        self.projection = nn.Linear(CHANNELS * PATCH * PATCH, WIDTH)
        self.positions = nn.Parameter(torch.randn(POSITIONS, WIDTH))
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.blocks = nn.ModuleList(Block(router) for _ in range(LAYERS))
        self.head_norm = nn.LayerNorm(WIDTH)
        self.head_hidden = nn.Linear(WIDTH, head_hidden) if head_hidden else None
        self.head_output = nn.Linear(head_hidden or WIDTH, CLASSES)

    def forward(self, images):  # (samples, height, width, channels), uint8
        x = (images.double() / 255 - 0.5) / 0.5
        patches = functional.unfold(x.permute(0, 3, 1, 2), PATCH, stride=PATCH).transpose(1, 2)
        x = self.projection(patches) + self.positions[: patches.shape[1]]
        x = torch.cat([self.cls.expand(len(x), 1, WIDTH), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.head_norm(x[:, 0])
        if self.head_hidden is not None:
            x = functional.gelu(self.head_hidden(x))
        return self.head_output(x)


# From a PyTorch parameter's name to Switchyard's.
RENAME = [
    (r"^(positions|cls)$", r"embedding.\1"),
    (r"^projection\.", r"embedding."),
    (r"^head_", r"head."),
    (r"(norm\d?)\.weight$", r"\1.gamma"),
    (r"(norm\d?)\.bias$", r"\1.beta"),
    (r"\.w(\d)\.weight$", r".w\1"),
    (r"\.w(\d)\.bias$", r".b\1"),
]


def named_arrays(named_tensors):
    """Arrays by Switchyard's names; an expert's become slices of one array, experts first."""
    arrays = {}
    for name, tensor in named_tensors:
        for pattern, replacement in RENAME:
            name = re.sub(pattern, replacement, name)
        value = tensor.detach().numpy()
        expert = re.search(r"\.experts\.(\d+)", name)
        if expert is None:
            arrays[name] = value
        else:
            name = name.replace(expert.group(), ".experts")
            arrays.setdefault(name, np.zeros((EXPERTS, *value.shape)))[int(expert.group(1))] = value
    return arrays


def make_model(router, head_hidden, generator_seed):
    torch.manual_seed(generator_seed)
    model = Transformer(router, head_hidden)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter += 0.3 * torch.randn_like(parameter)  # neither ones nor zeros: each must be used
            if "gate.weight" in name:
                parameter *= 4  # decided routes
    return model.double()


def run(model, images, labels):
    """Logits of the whole batch, cross entropy, balance loss and routes (layers, batch, tokens), by microbatches."""
    logits, balance, routes = [], 0, []
    for microbatch in images.split(MICROBATCH):
        logits.append(model(microbatch))
        if model.blocks[0].router == "switch":
            balance = balance + sum(block.balance_loss for block in model.blocks) / (BATCH // MICROBATCH)
            routes.append(torch.stack([block.chosen for block in model.blocks]))
            margin = min(block.margin for block in model.blocks)
            assert margin > MIN_MARGIN, f"margin {margin}: choose another seed"
    logits = torch.cat(logits)
    return logits, functional.cross_entropy(logits, labels), balance, torch.cat(routes, dim=1) if routes else None


def average_experts(model):
    """The same model with every expert replaced by the mean of all, as ffn.inference = average evaluates it."""
    average = {}
    for name, value in model.state_dict().items():
        same = [model.state_dict()[re.sub(r"experts\.\d+", f"experts.{e}", name)] for e in range(EXPERTS)]
        average[name] = torch.stack(same).mean(dim=0) if "experts" in name else value
    result = Transformer(model.blocks[0].router, 0 if model.head_hidden is None else model.head_hidden.out_features)
    result.double().load_state_dict(average)
    return result


def write_model(path, router, head_hidden, generator_seed):
    model = make_model(router, head_hidden, generator_seed)
    images = torch.randint(0, 256, (BATCH, IMAGE, IMAGE, CHANNELS), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH,))
    logits, loss, balance, routes = run(model, images, labels)
    (loss + balance).backward()

    with h5py.File(path, "w") as file:
        file.attrs.update(
            router=np.bytes_(router), image_size=IMAGE, channels=CHANNELS, patch=PATCH, classes=CLASSES, width=WIDTH,
            heads=HEADS, layers=LAYERS, hidden=HIDDEN, experts=0 if router == "dense" else EXPERTS,
            positions=POSITIONS, head_hidden=head_hidden, batch=BATCH, microbatch=MICROBATCH,
            balance_loss=BALANCE if router == "switch" else 0.0)
        file["images"] = images.numpy()
        file["labels"] = labels.numpy().astype(np.int32)
        file["logits"] = logits.detach().numpy().astype(np.float32)
        file["loss"] = np.float32(loss.item())
        file["balance_loss"] = np.float32(float(balance))
        if router == "switch":
            for layer in routes:
                counts = np.bincount(layer.flatten().numpy(), minlength=EXPERTS)
                assert counts.all(), f"tokens per expert {counts}: choose another seed"
            file["experts"] = routes.numpy().astype(np.int32)
        if router == "random":
            file.attrs["expert"] = RANDOM_EXPERT
            file["average_logits"] = average_experts(model)(images).detach().numpy().astype(np.float32)
        parameters = list(model.named_parameters())
        gradients = [(name, torch.zeros_like(p) if p.grad is None else p.grad) for name, p in parameters]
        for group, tensors in (("parameters", parameters), ("gradients", gradients)):
            for name, value in named_arrays(tensors).items():
                file[f"{group}/{name}"] = value.astype(np.float32)


def write_optimizers(path):
    """Parameters (steps, size) after each step, by torch.optim, each step with a gradient of its own."""
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(7, generator=generator).double()
    gradients = torch.randn(3, 7, generator=generator).double()
    gradients[1, 3] = 0
    adam = dict(lr=2e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    rules = {
        "adam": (torch.optim.Adam, adam),
        "adamw": (torch.optim.AdamW, adam),
        "sgd": (torch.optim.SGD, dict(lr=0.05, momentum=0.9, weight_decay=0.1)),
    }
    with h5py.File(path, "w") as file:
        file["start"] = start.numpy().astype(np.float32)
        file["gradients"] = gradients.numpy().astype(np.float32)
        for name, (rule, options) in rules.items():
            parameters = nn.Parameter(start.clone())
            optimizer = rule([parameters], **options)
            after = []
            for gradient in gradients:
                parameters.grad = gradient.clone()
                optimizer.step()
                after.append(parameters.detach().numpy().copy())
            file[name] = np.stack(after).astype(np.float32)
            if "betas" in options:
                options = {**options, "beta1": options["betas"][0], "beta2": options["betas"][1]}
                del options["betas"]
            file[name].attrs.update(options)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    write_model(folder / "dense.h5", "dense", 14, SEED)
    write_model(folder / "switch.h5", "switch", 0, SEED)
    write_model(folder / "random.h5", "random", 14, SEED)
    write_optimizers(folder / "optimizers.h5")


if __name__ == "__main__":
    main()
