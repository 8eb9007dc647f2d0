"""Switchyard's configuration files, as far as a model and its training step depend on them. Standard library only."""

import configparser
import pathlib

# Switchyard's own defaults (`switchyard train --help`).
DEFAULTS = {
    "data.kind": "fashion-mnist",
    "data.normalize": True,
    "data.mean": 0.5,
    "data.deviation": 0.5,
    "data.synthetic_size": 28,
    "data.synthetic_channels": 1,
    "data.synthetic_classes": 10,
    "model.layers": 4,
    "model.width": 64,
    "model.heads": 4,
    "model.patch": 7,
    "model.head_hidden": 0,
    "model.positions": 0,
    "ffn.kind": "dense",
    "ffn.hidden": 256,
    "ffn.experts": 4,
    "ffn.router": "switch",
    "ffn.granularity": "batch",
    "ffn.balance_loss": -1.0,  # the router's own, 0.01 for switch
    "train.batch": 128,
    "train.microbatch": 16,
    "train.optimizer": "adam",
    "train.lr": 1e-3,
    "train.weight_decay": 0.0,
    "train.momentum": 0.9,
    "train.beta1": 0.9,
    "train.beta2": 0.999,
    "train.epsilon": 1e-8,
    "train.clip": 0.0,
    "train.dropout": 0.1,
    "compute.dtype": "fp32",
}


class SettingsError(Exception):
    """Says what is wrong, where, and what to do."""


def read_settings(files, overrides=()):
    """{"train.batch": 128, ...} from files, later ones over earlier ones, then (key, text) pairs over both. Other keys
    than those above are Switchyard's to check."""
    settings = dict(DEFAULTS)
    for file in files:
        for key, text in read_file(pathlib.Path(file)):
            if key in DEFAULTS:
                settings[key] = parse(key, text, file)
    for key, text in overrides:
        if key not in DEFAULTS:
            raise SettingsError(f"--{key}: the model does not depend on this key; it depends on {', '.join(DEFAULTS)}")
        settings[key] = parse(key, text, f"--{key}")
    return settings


def read_file(path):
    parser = configparser.ConfigParser(inline_comment_prefixes="#", delimiters="=", interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=str(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read this configuration file: {error.strerror}") from error
    except configparser.Error as error:
        raise SettingsError(f"{error.message}: write [section] and key = value lines") from error
    return [(f"{section}.{key}", text) for section in parser.sections() for key, text in parser[section].items()]


def parse(key, text, where):
    kind = type(DEFAULTS[key])
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise SettingsError(f"{where}: {key} = {text}: give {wanted}") from None


def image_shape(settings):
    """(height, width, channels, classes)"""
    kind = settings["data.kind"]
    size = settings["data.synthetic_size"]
    shapes = {
        "fashion-mnist": (28, 28, 1, 10),
        "mnist": (28, 28, 1, 10),
        "cifar10": (32, 32, 3, 10),
        "cifar100": (32, 32, 3, 100),
        "synthetic": (size, size, settings["data.synthetic_channels"], settings["data.synthetic_classes"]),
    }
    if kind not in shapes:
        raise SettingsError(f"data.kind = {kind}: these images' shape is not known; take one of {', '.join(shapes)}")
    return shapes[kind]
