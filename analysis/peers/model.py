"""Switchyard's vision transformer and mixture of experts in PyTorch, as one would write them there for speed."""

import torch
from torch import nn
from torch.nn import functional

HAS_SDPA = hasattr(functional, "scaled_dot_product_attention")  # PyTorch 2


class Attention(nn.Module):
    def __init__(self, width, heads, dropout, sdpa):
        super().__init__()
        self.heads, self.dropout, self.sdpa = heads, dropout, sdpa
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x):  # (samples, tokens, width)
        samples, tokens, width = x.shape
        size = width // self.heads
        q, k, v = self.qkv(x).view(samples, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if self.sdpa:
            attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            p = torch.softmax((q * size**-0.5) @ k.transpose(-1, -2), dim=-1)
            attended = functional.dropout(p, dropout, self.training) @ v
        return self.output(attended.transpose(1, 2).reshape(samples, tokens, width))


class FeedForward(nn.Module):
    def __init__(self, width, hidden, dropout):
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.w2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.w2(self.dropout(functional.gelu(self.w1(x))))


class Permute(torch.autograd.Function):
    """Rows in another order. Indexing's own backward pass would add rows up one by one, for it cannot know that each
    occurs once."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, d_y):
        _, inverse = ctx.saved_tensors
        return d_y.index_select(0, inverse), None, None


class Mixture(nn.Module):
    """One expert for each token: a learned gate's choice, with the gate's weight ("switch"), or the caller's."""

    def __init__(self, width, hidden, num_experts, dropout, router, balance):
        super().__init__()
        self.balance = balance
        self.gate = nn.Linear(width, num_experts) if router == "switch" else None
        self.experts = nn.ModuleList(FeedForward(width, hidden, dropout) for _ in range(num_experts))

    def forward(self, x, chosen):  # (samples, tokens, width) -> the same, and the balance loss
        if self.gate is not None:
            return self.forward_switch(x)
        if isinstance(chosen, int):
            return self.experts[chosen](x), 0.0
        rows = x.flatten(0, 1)
        return self.run_experts(rows, chosen.flatten()).view_as(x), 0.0

    def forward_switch(self, x):
        """Switch Transformer (Fedus et al., 2101.03961), equations 4 to 6; the gate always in fp32."""
        rows = x.flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):
            p = torch.softmax(self.gate(rows.to(self.gate.weight.dtype)), dim=-1)  # (rows, experts)
        weight, chosen = p.max(dim=-1)
        counts = torch.bincount(chosen, minlength=len(self.experts))
        balance = self.balance * len(self.experts) * (counts / len(rows) * p.mean(dim=0)).sum()
        y = weight.unsqueeze(-1) * self.run_experts(rows, chosen, counts)
        return y.view_as(x), balance

    def run_experts(self, rows, chosen, counts=None):
        if counts is None:
            counts = torch.bincount(chosen, minlength=len(self.experts))
        order = torch.argsort(chosen, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        segments = Permute.apply(rows, order, inverse).split(counts.tolist())
        outputs = torch.cat([expert(segment) for expert, segment in zip(self.experts, segments)])
        return Permute.apply(outputs, inverse, order)


class Block(nn.Module):
    """Pre-norm, with dropout on both residual branches."""

    def __init__(self, settings, sdpa):
        super().__init__()
        width, hidden, dropout = settings["model.width"], settings["ffn.hidden"], settings["train.dropout"]
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, settings["model.heads"], dropout, sdpa)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.ffn = self.mixture = None
        if settings["ffn.kind"] == "dense":
            self.ffn = FeedForward(width, hidden, dropout)
        else:
            self.mixture = Mixture(width, hidden, settings["ffn.experts"], dropout, settings["ffn.router"],
                                   0.01 if settings["ffn.balance_loss"] == -1 else settings["ffn.balance_loss"])

    def forward(self, x, chosen):
        x = x + self.dropout(self.attention(self.norm1(x)))
        if self.ffn is not None:
            return x + self.dropout(self.ffn(self.norm2(x))), 0.0
        y, balance = self.mixture(self.norm2(x), chosen)
        return x + self.dropout(y), balance


class VisionTransformer(nn.Module):
    def __init__(self, settings, shape, sdpa=HAS_SDPA):
        super().__init__()
        height, width_pixels, channels, classes = shape
        self.patch, width = settings["model.patch"], settings["model.width"]
        self.mean = settings["data.mean"] if settings["data.normalize"] else 0.0
        self.deviation = settings["data.deviation"] if settings["data.normalize"] else 1.0
        self.num_patches = (height // self.patch) * (width_pixels // self.patch)
        self.projection = nn.Linear(channels * self.patch**2, width)
        self.positions = nn.Parameter(torch.randn(settings["model.positions"] or self.num_patches, width))
        self.cls = nn.Parameter(torch.randn(width))
        self.blocks = nn.ModuleList(Block(settings, sdpa) for _ in range(settings["model.layers"]))
        self.head_norm = nn.LayerNorm(width)
        head_hidden = settings["model.head_hidden"]
        self.head_hidden = nn.Linear(width, head_hidden) if head_hidden else None
        self.head_output = nn.Linear(head_hidden or width, classes)

    def forward(self, images, chosen=None):
        """(samples, height, width, channels) uint8 -> logits (samples, classes), and the blocks' balance losses summed.
        chosen: of random routing, the expert of each token (samples, tokens), or one number for all."""
        x = self.projection(self.patches(images)) + self.positions[: self.num_patches]
        x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        balance = 0.0
        for block in self.blocks:
            x, block_balance = block(x, chosen)
            balance = balance + block_balance
        x = self.head_norm(x[:, 0])
        if self.head_hidden is not None:
            x = functional.gelu(self.head_hidden(x))
        return self.head_output(x), balance

    def patches(self, images):  # -> (samples, patches, channels * patch * patch)
        samples, height, width, channels = images.shape
        p = self.patch
        x = (images.to(self.projection.weight.dtype) / 255 - self.mean) / self.deviation
        x = x.view(samples, height // p, p, width // p, p, channels).permute(0, 1, 3, 5, 2, 4)
        return x.reshape(samples, self.num_patches, channels * p * p)
