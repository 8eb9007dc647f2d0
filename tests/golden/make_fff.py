"""Golden values of a fast feedforward network (Belcak & Wattenhofer, 2308.14711) in NumPy: make_fff.py [FOLDER].

Writes fff.h5: flattened images -> network -> classes, with region leak; its loss is cross entropy plus HARDENING times
the mean over samples and nodes of the entropy of a node's choice. Forward and backward are written out node by node and
leaf by leaf, in float64, as the paper's recursion has them; results are stored as float32.
"""

import pathlib
import sys

import h5py
import numpy as np

from routers import philox

IMAGE, CHANNELS, CLASSES, BATCH, MICROBATCH = 4, 3, 5, 8, 2
DEPTH, LEAF, HARDENING, LEAK, SEED = 3, 4, 0.7, 0.25, 31
WIDTH, LEAVES = IMAGE * IMAGE * CHANNELS, 2**DEPTH
REGION_LEAK = 19  # the purpose of its draws


def draw_parameters(random):
    bounds = {"tree.weight": (LEAVES - 1, WIDTH), "tree.bias": (LEAVES - 1,), "leaves.w1": (LEAVES, LEAF, WIDTH),
              "leaves.b1": (LEAVES, LEAF), "leaves.w2": (LEAVES, LEAF, CLASSES), "leaves.b2": (LEAVES, CLASSES)}
    return {name: random.uniform(-0.5, 0.5, shape).astype(np.float32).astype(np.float64)
            for name, shape in bounds.items()}


def leaf_output(p, leaf, x):
    hidden = np.maximum(p["leaves.w1"][leaf] @ x + p["leaves.b1"][leaf], 0)
    return hidden, hidden @ p["leaves.w2"][leaf] + p["leaves.b2"][leaf]


def swaps(sample):
    """Whether each node's children are swapped for the sample."""
    words = philox(SEED, REGION_LEAK, 0, np.full(2, sample), np.arange(2)).reshape(-1)[: LEAVES - 1]
    return (words >> np.uint64(8)) * 2.0**-24 < LEAK


def entropy(s):
    return -s * np.log(s) - (1 - s) * np.log(1 - s)


class Sample:
    """One sample's way down and, after backward(), its part of every gradient."""

    def __init__(self, p, x, sample):
        self.p, self.x = p, x
        self.z = p["tree.weight"] @ x + p["tree.bias"]
        self.s = 1 / (1 + np.exp(-self.z))
        self.sign = np.where(swaps(sample), -1.0, 1.0)
        self.c = np.where(self.sign < 0, 1 - self.s, self.s)
        self.leaves = [leaf_output(p, leaf, x) for leaf in range(LEAVES)]
        self.logits = self.value(0, 0)

    def value(self, level, j):
        """The output of what hangs below node (level, j)."""
        if level == DEPTH:
            return self.leaves[j][1]
        c = self.c[2**level - 1 + j]
        return c * self.value(level + 1, 2 * j + 1) + (1 - c) * self.value(level + 1, 2 * j)

    def backward(self, d_logits, d_entropy):
        self.d = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.push(0, 0, d_logits)
        for node, z in enumerate(self.z):
            d_z = self.d["tree.bias"][node] * self.sign[node] * self.s[node] * (1 - self.s[node])
            d_z += d_entropy * -z * self.s[node] * (1 - self.s[node])
            self.d["tree.bias"][node] = d_z
            self.d["tree.weight"][node] = d_z * self.x

    def push(self, level, j, d_output):
        if level == DEPTH:
            hidden, _ = self.leaves[j]
            self.d["leaves.b2"][j] = d_output
            self.d["leaves.w2"][j] = np.outer(hidden, d_output)
            d_hidden = (self.p["leaves.w2"][j] @ d_output) * (hidden > 0)
            self.d["leaves.b1"][j] = d_hidden
            self.d["leaves.w1"][j] = np.outer(d_hidden, self.x)
            return
        node = 2**level - 1 + j
        left, right = self.value(level + 1, 2 * j), self.value(level + 1, 2 * j + 1)
        self.d["tree.bias"][node] = d_output @ (right - left)  # to c, on its way
        self.push(level + 1, 2 * j + 1, d_output * self.c[node])
        self.push(level + 1, 2 * j, d_output * (1 - self.c[node]))


def descend(p, x):
    j = 0
    for level in range(DEPTH):
        node = 2**level - 1 + j
        j = 2 * j + int(p["tree.weight"][node] @ x + p["tree.bias"][node] >= 0)
    return j


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    random = np.random.default_rng(SEED)
    p = draw_parameters(random)
    images = random.integers(0, 256, (BATCH, IMAGE, IMAGE, CHANNELS), dtype=np.uint8)
    labels = random.integers(0, CLASSES, BATCH).astype(np.int32)
    xs = (images.reshape(BATCH, -1) / 255 - 0.5) / 0.5
    samples = [Sample(p, x, i) for i, x in enumerate(xs)]
    losses, gradients = [], {name: np.zeros_like(value) for name, value in p.items()}
    for sample, label in zip(samples, labels):
        z = sample.logits - sample.logits.max()
        probabilities = np.exp(z) / np.exp(z).sum()
        losses.append(-np.log(probabilities[label]))
        probabilities[label] -= 1
        sample.backward(probabilities / BATCH, HARDENING / BATCH / (LEAVES - 1))
        for name, value in sample.d.items():
            gradients[name] += value
    entropies = np.array([entropy(sample.s) for sample in samples])  # (samples, nodes)
    leaves = np.array([descend(p, x) for x in xs], dtype=np.int32)
    assert len(set(leaves)) > 3 and any(swaps(i).any() for i in range(BATCH)), "too little happens: another SEED"

    with h5py.File(folder / "fff.h5", "w") as file:
        file.attrs.update(image_size=IMAGE, channels=CHANNELS, classes=CLASSES, batch=BATCH, microbatch=MICROBATCH,
                          depth=DEPTH, leaf=LEAF, hardening=HARDENING, region_leak=LEAK, seed=SEED)
        file["images"], file["labels"], file["leaves"] = images, labels, leaves
        file["logits"] = np.array([sample.logits for sample in samples], dtype=np.float32)
        file["hard_logits"] = np.array([leaf_output(p, leaf, x)[1] for leaf, x in zip(leaves, xs)], dtype=np.float32)
        file["loss"] = np.float32(np.mean(losses))
        file["hardening_loss"] = np.float32(HARDENING * entropies.mean())
        file["entropy"] = entropies.sum(axis=0).astype(np.float32)
        for group, arrays in (("parameters", p), ("gradients", gradients)):
            for name, value in arrays.items():
                file[f"{group}/blocks.0.{name}"] = value.astype(np.float32)


if __name__ == "__main__":
    main()
