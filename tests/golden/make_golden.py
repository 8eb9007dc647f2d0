"""Golden values for the C++ tests, from small vision transformers in plain PyTorch: make_golden.py [FOLDER].

Writes dense.h5, switch.h5, random.h5, optimizers.h5, and a file for each of MIXTURES. Parameters and images are drawn,
rounded to float32, and all arithmetic is then in float64; results are stored as float32. No dropout, no augmentation.
"""

import pathlib
import re
import sys

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from routers import ROUTERS, Place

IMAGE, CHANNELS, PATCH, CLASSES = 8, 3, 4, 5
WIDTH, HEADS, LAYERS, HIDDEN, EXPERTS = 12, 3, 2, 20, 4
POSITIONS = 7  # rows of the table; the first (IMAGE / PATCH)^2 are used
BATCH = 8
RANDOM_EXPERT = 2  # the one that every token of every layer takes in random.h5
SEED = 554  # gives switch.h5 clear routes, work for every expert, and a microbatch without any for one

# What ffn of a file's model is, by the names of RouterOptions and FfnOptions; "margin": how far its choices are from
# other ones at least, since rounding must not change a route, and "model_seed" what gives it such choices.
DEFAULTS = dict(
    router="dense", top_k=1, scores="softmax", renormalise=0, balance_loss=0.0, z_loss=0.0, importance_loss=0.0,
    load_loss=0.0, noise_floor=0.0, capacity_train=0.0, capacity_order="choice", shared=0, seed=1, microbatch=2,
    head_hidden=0, margin=1e-3, model_seed=SEED)
OLDEST = {  # with fewer attributes than the others
    "dense": dict(microbatch=4, head_hidden=14),
    "switch": dict(router="switch", balance_loss=0.01, microbatch=4, margin=0.02),
    "random": dict(router="random", microbatch=4, head_hidden=14),
}
MIXTURES = {
    "top_k": dict(router="top_k", top_k=2, renormalise=1, balance_loss=0.05, z_loss=0.01, importance_loss=0.1),
    "top_k_sigmoid": dict(
        router="top_k", top_k=3, scores="sigmoid", balance_loss=0.05, importance_loss=0.1, model_seed=577),
    "noisy_top_k": dict(router="noisy_top_k", top_k=2, importance_loss=0.1, load_loss=0.1, seed=77, model_seed=572),
    "noisy_top_k_floor": dict(
        router="noisy_top_k", top_k=2, importance_loss=0.1, load_loss=0.1, noise_floor=0.25, seed=77, model_seed=572),
    "top_k_capacity": dict(
        router="top_k", top_k=2, renormalise=1, balance_loss=0.05, capacity_train=0.75, model_seed=552),
    "loss_free": dict(router="loss_free", top_k=2, scores="sigmoid", renormalise=1, model_seed=588),
    "expert_choice": dict(router="expert_choice", capacity_train=1.5, model_seed=599),
    "switch_capacity": dict(router="switch", balance_loss=0.05, capacity_train=1.0, shared=1, model_seed=568),
    "hash": dict(router="hash", seed=3),
}
LOSSES = ("balance", "z", "importance", "load")


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
    def __init__(self, hidden=HIDDEN):
        super().__init__()
        self.w1 = nn.Linear(WIDTH, hidden)
        self.w2 = nn.Linear(hidden, WIDTH)

    def forward(self, x):
        return self.w2(functional.gelu(self.w1(x)))


class Block(nn.Module):
    """Pre-norm; the feed-forward part is one network (dense), or some of EXPERTS for each token."""

    def __init__(self, layer, options):
        super().__init__()
        self.layer, self.router = layer, options["router"]
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        if self.router == "dense":
            self.ffn = FeedForward()
        else:
            self.experts = nn.ModuleList(FeedForward() for _ in range(EXPERTS))
        if self.router in ROUTERS:
            self.gate = ROUTERS[self.router](WIDTH, EXPERTS, options)
        self.shared = FeedForward(options["shared"] * HIDDEN) if options["shared"] else None

    def forward(self, x, first_sample):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x), first_sample)

    def feed_forward(self, x, first_sample):
        if self.router == "dense":
            return self.ffn(x)
        if self.router == "random":
            return self.experts[RANDOM_EXPERT](x)
        tokens_per_sample = x.shape[1]
        tokens = x.flatten(0, 1)
        self.routes = self.gate(tokens, Place(self.layer, first_sample * tokens_per_sample, tokens_per_sample))
        outputs = torch.stack([expert(tokens) for expert in self.experts], dim=-2)  # (tokens, experts, width)
        y = (self.routes.weights.unsqueeze(-1) * outputs).sum(dim=-2).reshape(x.shape)
        return y if self.shared is None else y + self.shared(x)


class Transformer(nn.Module):
    def __init__(self, options):
        super().__init__()
        head_hidden = options["head_hidden"]
        self.projection = nn.Linear(CHANNELS * PATCH * PATCH, WIDTH)
        self.positions = nn.Parameter(torch.randn(POSITIONS, WIDTH))
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.blocks = nn.ModuleList(Block(layer, options) for layer in range(LAYERS))
        self.head_norm = nn.LayerNorm(WIDTH)
        self.head_hidden = nn.Linear(WIDTH, head_hidden) if head_hidden else None
        self.head_output = nn.Linear(head_hidden or WIDTH, CLASSES)

    def forward(self, images, first_sample=0):  # (samples, height, width, channels), uint8
        x = (images.double() / 255 - 0.5) / 0.5
        patches = functional.unfold(x.permute(0, 3, 1, 2), PATCH, stride=PATCH).transpose(1, 2)
        x = self.projection(patches) + self.positions[: patches.shape[1]]
        x = torch.cat([self.cls.expand(len(x), 1, WIDTH), x], dim=1)
        for block in self.blocks:
            x = block(x, first_sample)
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


def make_model(options):
    torch.manual_seed(options["model_seed"])
    model = Transformer(options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter += 0.3 * torch.randn_like(parameter)  # neither ones nor zeros: each must be used
            if "gate.weight" in name:
                parameter *= 4  # decided routes
    return model.double()


def run(model, images, options):
    """Logits of the whole batch, and routes[microbatch][layer] where there are any."""
    logits, routes = [], []
    for microbatch in images.split(options["microbatch"]):
        logits.append(model(microbatch, options["microbatch"] * len(logits)))
        if options["router"] in ROUTERS:
            routes.append([block.routes for block in model.blocks])
            margin = min(layer.margin for layer in routes[-1])
            assert margin > options["margin"], f"margin {margin}: choose another seed"
    return torch.cat(logits), routes


def mean_losses(routes):
    """Each auxiliary loss: summed over layers, the mean over microbatches."""
    sums = {name: 0.0 for name in LOSSES}
    for microbatch in routes:
        for layer in microbatch:
            for name, value in layer.losses.items():
                sums[name] = sums[name] + value / len(routes)
    return sums


def average_experts(model, options):
    """The same model with every expert replaced by the mean of all, as ffn.inference = average evaluates it."""
    average = {}
    for name, value in model.state_dict().items():
        same = [model.state_dict()[re.sub(r"experts\.\d+", f"experts.{e}", name)] for e in range(EXPERTS)]
        average[name] = torch.stack(same).mean(dim=0) if "experts" in name else value
    result = Transformer(options)
    result.double().load_state_dict(average)
    return result


def by_layer(routes, field):
    """A tensor of each microbatch's routes as (layers, microbatches, ...)."""
    return torch.stack([torch.stack([getattr(layer, field) for layer in microbatch]) for microbatch in routes], dim=1)


def write_routes(file, routes, options):
    kept = by_layer(routes, "kept")
    assert kept.sum(dim=1).all(), "an expert without work: choose another seed"
    chosen = by_layer(routes, "chosen").numpy().astype(np.int32)  # (layers, microbatches, tokens, k)
    if options["router"] == "switch" and not options["shared"]:  # switch.h5
        file["experts"] = chosen.reshape(LAYERS, BATCH, -1)
        return
    file["experts"] = chosen
    file["tokens_per_expert"] = kept.numpy().astype(np.int32)
    if options["capacity_train"]:
        assert (by_layer(routes, "weights").sum(dim=-1) == 0).any(), "no token without an expert: choose another seed"


def write_model(path, options):
    is_oldest, options = path.stem in OLDEST, {**DEFAULTS, **options}
    router, head_hidden = options["router"], options["head_hidden"]
    model = make_model(options)
    images = torch.randint(0, 256, (BATCH, IMAGE, IMAGE, CHANNELS), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH,))
    logits, routes = run(model, images, options)
    loss, auxiliary = functional.cross_entropy(logits, labels), mean_losses(routes)
    (loss + sum(auxiliary.values())).backward()

    with h5py.File(path, "w") as file:
        file.attrs.update(
            router=np.bytes_(router), image_size=IMAGE, channels=CHANNELS, patch=PATCH, classes=CLASSES, width=WIDTH,
            heads=HEADS, layers=LAYERS, hidden=HIDDEN, experts=0 if router == "dense" else EXPERTS,
            positions=POSITIONS, head_hidden=head_hidden, batch=BATCH, microbatch=options["microbatch"],
            balance_loss=options["balance_loss"])
        file["images"] = images.numpy()
        file["labels"] = labels.numpy().astype(np.int32)
        file["logits"] = logits.detach().numpy().astype(np.float32)
        file["loss"] = np.float32(loss.item())
        file["balance_loss"] = np.float32(float(auxiliary["balance"]))
        if routes:
            write_routes(file, routes, options)
        if router == "random":
            file.attrs["expert"] = RANDOM_EXPERT
            file["average_logits"] = average_experts(model, options)(images).detach().numpy().astype(np.float32)
        if not is_oldest:
            file.attrs["scores"] = np.bytes_(options["scores"])
            file.attrs["capacity_order"] = np.bytes_(options["capacity_order"])
            for key in ("top_k", "renormalise", "z_loss", "importance_loss", "load_loss", "noise_floor",
                        "capacity_train", "shared", "seed"):
                file.attrs[key] = options[key]
            for name in LOSSES[1:]:
                file[f"{name}_loss"] = np.float32(float(auxiliary[name]))
        parameters, untrained = list(model.named_parameters()), list(model.named_buffers())
        gradients = [(name, torch.zeros_like(p) if p.grad is None else p.grad) for name, p in parameters]
        for group, tensors in (("parameters", parameters + untrained), ("gradients", gradients)):
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
    for name, options in {**OLDEST, **MIXTURES}.items():
        write_model(folder / f"{name}.h5", options)
    write_optimizers(folder / "optimizers.h5")


if __name__ == "__main__":
    main()
