"""Routers for make_golden.py, from their papers' equations, in PyTorch and NumPy.

A router sees the tokens of one microbatch, x (tokens, width), and gives Routes. What is drawn at random follows
Philox4x32-10 with the counters and purposes of lib/core/random.hpp, done here by NumPy.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

GATE_NOISE, HASH = 13, 15  # purposes of draws


@dataclasses.dataclass
class Routes:
    weights: torch.Tensor  # (tokens, experts); 0 where the token does not go
    chosen: torch.Tensor  # (tokens, k); -1: a choice that was not made
    kept: torch.Tensor  # (experts) tokens that each expert works on
    losses: dict  # of balance, z, importance, load: each weighted
    margin: float  # how far the nearest choice is from another one


@dataclasses.dataclass
class Place:
    """Where a microbatch is: draws are keyed by it."""

    layer: int
    first_token: int  # of the batch
    tokens_per_sample: int


def philox(seed, purpose, layer, rows, block, step=0):
    """Words (rows, 4) of Philox4x32-10 (Salmon et al., SC 2011)."""
    mask, low = np.uint64(0xFFFFFFFF), np.uint64(32)
    rows = np.asarray(rows, dtype=np.uint64)
    c = [np.full_like(rows, value) for value in (block, 0, step, purpose << 24 | layer)]
    c[1] = rows
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> low) ^ c[1] ^ np.uint64(k[0]), p1 & mask, (p0 >> low) ^ c[3] ^ np.uint64(k[1]), p0 & mask]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, axis=-1)


# The known answer for zeros that comes with Random123.
assert [f"{word:08x}" for word in philox(0, 0, 0, [0], 0)[0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def cv_squared(x):
    """Population variance over squared mean (Shazeer et al., 1701.06538, equation 7)."""
    return ((x - x.mean()) ** 2).mean() / x.mean() ** 2


def smallest_gap(values, places):
    """The least distance between neighbours among the `places` + 1 largest of each row: what decides a choice."""
    best = values.detach().sort(dim=-1, descending=True).values
    return (best[..., :places] - best[..., 1 : places + 1]).min().item()


class Gate(nn.Linear):
    has_bias = True

    def __init__(self, width, experts, options):
        super().__init__(width, experts, bias=self.has_bias)
        self.experts, self.options = experts, options


class TopK(Gate):
    """The k experts with the largest score; the k scores are the weights, perhaps over their sum. k = 1: Switch
    (Fedus et al., 2101.03961); k = 2, renormalised: GShard (Lepikhin et al., 2006.16668)."""

    def selection(self, scores):
        return scores

    def forward(self, x, place):
        z, k = functional.linear(x, self.weight, self.bias), self.options["top_k"]
        sigmoid = self.options["scores"] == "sigmoid"
        scores = torch.sigmoid(z) if sigmoid else torch.softmax(z, dim=-1)
        chosen = self.selection(scores).topk(k, dim=-1).indices
        weights = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
        if self.options["renormalise"]:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        probabilities = scores / scores.sum(dim=-1, keepdim=True) if sigmoid else scores
        losses = self.losses(z, probabilities, chosen, weights)
        kept_weights, kept = self.within_capacity(chosen, weights)
        margin = smallest_gap(self.selection(scores), min(k, self.experts - 1))
        return Routes(kept_weights, chosen, kept, losses, margin)

    def losses(self, z, probabilities, chosen, weights):
        fraction = torch.bincount(chosen.flatten(), minlength=self.experts).to(z) / chosen.numel()
        alpha = self.options
        return {
            "balance": alpha["balance_loss"] * self.experts * (fraction * probabilities.mean(dim=0)).sum(),
            "z": alpha["z_loss"] * (torch.logsumexp(z, dim=-1) ** 2).mean(),
            "importance": alpha["importance_loss"] * cv_squared(weights.sum(dim=0)),
        }

    def within_capacity(self, chosen, weights):
        """Each expert keeps ceil(factor N k / E) tokens, factor 0: all; those whose first choice it is in their order,
        then those whose second (GShard, algorithm 1: the position in an expert's buffer goes on from all first
        choices' count), or all in their order."""
        taken = functional.one_hot(chosen, self.experts)  # (tokens, k, experts)
        if self.options["capacity_train"]:
            capacity = math.ceil(self.options["capacity_train"] * chosen.numel() / self.experts)
            if self.options["capacity_order"] == "choice":
                counts = taken.sum(dim=0)  # (k, experts)
                before = counts.cumsum(dim=0) - counts
                position = before + taken.cumsum(dim=0)
            else:
                position = taken.sum(dim=1).cumsum(dim=0).unsqueeze(1)
            taken = taken * (position <= capacity)
        taken = taken.sum(dim=1)
        return weights * taken, taken.sum(dim=0)


class NoisyTopK(TopK):
    """Shazeer et al., 1701.06538: equations 3 to 5, and the smooth load of appendix A; the noise's deviation with a
    floor added."""

    has_bias = False

    def __init__(self, width, experts, options):
        super().__init__(width, experts, options)
        self.noise = nn.Parameter(torch.randn(experts, width) / 2)

    def draw(self, tokens, place):
        """Standard normal by Box-Muller: expert e takes words 2 (e % 2) and 2 (e % 2) + 1 of block e // 2."""
        rows = place.first_token + np.arange(tokens)
        noise = np.zeros((tokens, self.experts))
        for e in range(self.experts):
            words = philox(self.options["seed"], GATE_NOISE, place.layer, rows, e // 2)
            u1, u2 = (words[:, 2 * (e % 2) + i].astype(np.int64) // 256 / 2.0**24 for i in (0, 1))
            noise[:, e] = np.sqrt(-2 * np.log(1 - u1)) * np.cos(2 * np.pi * u2)
        return torch.from_numpy(noise)

    def forward(self, x, place):
        k = self.options["top_k"]
        clean, deviation = x @ self.weight.T, functional.softplus(x @ self.noise.T) + self.options["noise_floor"]
        noisy = clean + self.draw(len(x), place) * deviation
        best = noisy.topk(k + 1, dim=-1)
        chosen = best.indices[:, :k]
        is_chosen = functional.one_hot(chosen, self.experts).sum(dim=1).bool()
        weights = torch.softmax(noisy.masked_fill(~is_chosen, -math.inf), dim=-1)
        # The k-th largest without oneself: the k+1-st for those chosen.
        threshold = torch.where(is_chosen, best.values[:, k : k + 1], best.values[:, k - 1 : k])
        load = torch.special.ndtr((clean - threshold) / deviation).sum(dim=0)
        losses = self.losses(noisy, torch.softmax(noisy, dim=-1), chosen, weights)
        losses["load"] = self.options["load_loss"] * cv_squared(load)
        return Routes(weights, chosen, is_chosen.sum(dim=0), losses, smallest_gap(noisy, k))


class LossFree(TopK):
    """Wang et al., 2408.15664: a bias that no gradient trains moves the choice, not the weights."""

    def __init__(self, width, experts, options):
        super().__init__(width, experts, options)
        self.register_buffer("selection_bias", 0.4 * torch.randn(experts))

    def selection(self, scores):
        return scores + self.selection_bias


class ExpertChoice(Gate):
    """Zhou et al., 2202.09368: each expert takes its floor(N c / E) best tokens."""

    has_bias = False

    def forward(self, x, place):
        scores = torch.softmax(x @ self.weight.T, dim=-1)
        capacity = math.floor(len(x) * self.options["capacity_train"] / self.experts)
        best = scores.T.topk(capacity, dim=-1)  # (experts, capacity)
        weights = torch.zeros_like(scores.T).scatter(1, best.indices, best.values).T
        taken = functional.one_hot(best.indices, len(x)).sum(dim=1).T.bool()  # (tokens, experts)
        chosen = torch.where(taken, torch.arange(self.experts), -1)
        ranked = scores.detach().sort(dim=0, descending=True).values
        margin = (ranked[capacity - 1] - ranked[capacity]).min().item()
        return Routes(weights, chosen, taken.sum(dim=0), {}, margin)


class Hash(nn.Module):
    """Roller et al., 2106.04426, by position: a random permutation of a sample's places, dealt out evenly."""

    def __init__(self, width, experts, options):
        super().__init__()
        self.experts, self.options = experts, options

    def forward(self, x, place):
        table = [position % self.experts for position in range(place.tokens_per_sample)]
        for left in range(len(table), 1, -1):  # Fisher-Yates
            j = int(philox(self.options["seed"], HASH, place.layer, [left], 0)[0, 0]) * left >> 32
            table[left - 1], table[j] = table[j], table[left - 1]
        chosen = torch.tensor(table).repeat(len(x) // place.tokens_per_sample).unsqueeze(-1)
        one_hot = functional.one_hot(chosen[:, 0], self.experts)
        return Routes(one_hot.to(x), chosen, one_hot.sum(dim=0), {}, math.inf)


ROUTERS = {
    "switch": TopK,
    "top_k": TopK,
    "noisy_top_k": NoisyTopK,
    "loss_free": LossFree,
    "expert_choice": ExpertChoice,
    "hash": Hash,
}
