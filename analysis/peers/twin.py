"""Times training steps of a Switchyard configuration in PyTorch: twin.py --config FILE [--KEY VALUE ...]

Images are random, on the device before the clock starts, neither cropped nor flipped. Prints one line of JSON.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"twin.py: {sys.executable} cannot load PyTorch ({error}): set it up with analysis/peers/setup.sh, then "
             "run twin.py with build/peers-venv/bin/python")
from torch.nn import functional

import model as vit
from settings import DEFAULTS, SettingsError, image_shape, read_settings

DEFAULT_MICROBATCH = 16  # 128, 64 and 32 were slower or as fast on two Zen 4 cores, in fp32 and in bf16


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--config", action="append", required=True, help="Switchyard's file; later ones win")
    parser.add_argument("--steps", type=int, default=10, help="steps that count (default 10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default 2)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--microbatch", type=int, default=0,
                        help=f"samples computed together (default {DEFAULT_MICROBATCH})")
    parser.add_argument("--sdpa", action=flag, default=vit.HAS_SDPA, help="scaled_dot_product_attention")
    parser.add_argument("--autocast", action=flag, default=None, help="bf16 (default: as compute.dtype)")
    parser.add_argument("--compile", action=flag, default=False, help="torch.compile")
    parser.add_argument("--keep-memory", action=flag, default=True, help="freed memory stays with the process")
    keys = parser.add_argument_group("Switchyard's keys, over those of the files")
    for key in DEFAULTS:
        keys.add_argument(f"--{key}", metavar="VALUE")
    arguments = parser.parse_args()
    overrides = [(key, text) for key, text in vars(arguments).items() if key in DEFAULTS and text is not None]
    settings = read_settings(arguments.config, overrides)
    if arguments.autocast is None:
        arguments.autocast = settings["compute.dtype"] == "bf16"
    if arguments.microbatch == 0:
        arguments.microbatch = min(DEFAULT_MICROBATCH, settings["train.batch"])
    return arguments, settings


def keep_memory():
    """glibc gives large blocks back to the system when they are freed, and their pages are then zeroed again in every
    step. With these limits a step's memory is reused by the next."""
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    if not (hasattr(libc, "mallopt") and libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1)):
        print("twin.py: this C library's malloc takes no limits; going on without", file=sys.stderr)


def make_optimizer(settings, parameters, device):
    rate, decay = settings["train.lr"], settings["train.weight_decay"]
    kind = settings["train.optimizer"]
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings["train.momentum"], weight_decay=decay)
    rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    options = dict(lr=rate, betas=(settings["train.beta1"], settings["train.beta2"]), eps=settings["train.epsilon"],
                   weight_decay=decay)
    try:
        return rule(parameters, fused=True, **options)
    except RuntimeError:  # on the CPU, before PyTorch 2.4
        return rule(parameters, foreach=True, **options)


class Training:
    def __init__(self, arguments, settings):
        self.settings, self.device = settings, torch.device(arguments.device)
        self.microbatch, self.autocast = arguments.microbatch, arguments.autocast
        shape = height, width, channels, classes = image_shape(settings)
        torch.manual_seed(1)
        self.model = vit.VisionTransformer(settings, shape, arguments.sdpa).to(self.device).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(settings, self.parameters, self.device)
        self.forward = torch.compile(self.model) if arguments.compile else self.model
        batch = settings["train.batch"]
        self.images = torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, classes, (batch,), device=self.device)

    def step(self):
        batch = len(self.images)
        chosen = self.draw_experts()
        for first in range(0, batch, self.microbatch):
            part = slice(first, first + self.microbatch)
            experts = chosen[part] if isinstance(chosen, torch.Tensor) else chosen
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
                logits, balance = self.forward(self.images[part], experts)
                loss = functional.cross_entropy(logits, self.labels[part]) + balance
            (loss * (len(logits) / batch)).backward()
        # Experts that no token reached: their moments and their weight decay go on.
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.settings["train.clip"] > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings["train.clip"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def draw_experts(self):
        """Of random routing: one number, or (batch, tokens); a draw holds for all layers."""
        if self.settings["ffn.kind"] != "moe" or self.settings["ffn.router"] != "random":
            return None
        experts, shape = self.settings["ffn.experts"], (len(self.images), self.model.num_patches + 1)
        granularity = self.settings["ffn.granularity"]
        if granularity == "batch":
            return int(torch.randint(experts, ()))
        if granularity == "sample":
            return torch.randint(experts, (shape[0], 1), device=self.device).expand(shape)
        if granularity == "token":
            return torch.randint(experts, shape, device=self.device)
        return (torch.randperm(shape[0] * shape[1], device=self.device) % experts).view(shape)  # balanced

    def timed_step(self):
        self.synchronize()
        start = time.perf_counter()
        self.step()
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main():
    arguments, settings = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory and arguments.device == "cpu":
        keep_memory()
    training = Training(arguments, settings)
    for _ in range(arguments.warmup):
        training.step()
    seconds = [training.timed_step() for _ in range(arguments.steps)]
    on_cuda = arguments.device == "cuda"
    options = ("threads", "microbatch", "sdpa", "autocast", "compile", "keep_memory", "steps", "warmup")
    print(json.dumps({
        "images_per_second": settings["train.batch"] / statistics.median(seconds),
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in training.parameters),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_cuda else "cpu",
        "batch": settings["train.batch"],
        **{name: getattr(arguments, name) for name in options},
    }))


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(f"twin.py: {error}")
