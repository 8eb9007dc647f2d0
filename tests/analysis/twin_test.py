"""The PyTorch twin is Switchyard's model: the study's parameter counts, and the golden logits, losses and gradients.

twin_test.py ROOT PROGRAM; ends with 77 (skipped) where there is no PyTorch. Of build/peers-venv, where that exists.
"""

import os
import pathlib
import re
import subprocess
import sys
import unittest
import unittest.mock

ROOT, PROGRAM = pathlib.Path(sys.argv[1]), sys.argv[2]
ENVIRONMENT = ROOT / "build/peers-venv/bin/python"
if ENVIRONMENT.exists() and sys.prefix == sys.base_prefix:
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), "-B", *sys.argv])
try:
    import h5py
    import numpy as np
    import torch
    from torch.nn import functional
except ImportError as error:
    print(f"skipped: {error}; analysis/peers/setup.sh makes an environment with what is missing")
    sys.exit(77)

sys.path[:0] = [str(ROOT / "analysis/peers"), str(ROOT / "tests/golden")]
import model as vit
import settings
from make_golden import RENAME


def switchyard_name(name):
    """A twin's parameter -> Switchyard's, and which expert's; None for those that all ranks hold."""
    name = name.replace(".mixture.", ".")
    for pattern, replacement in RENAME:
        name = re.sub(pattern, replacement, name)
    expert = re.search(r"\.experts\.(\d+)", name)
    return (name, None) if expert is None else (name.replace(expert[0], ".experts"), int(expert[1]))


def golden_model(file, sdpa):
    a = dict(file.attrs)
    values = settings.read_settings([])
    router = a["router"].decode()
    for key in ("width", "heads", "layers", "patch", "positions", "head_hidden"):
        values[f"model.{key}"] = int(a[key])
    values |= {"ffn.kind": "dense" if router == "dense" else "moe", "ffn.router": router,
               "ffn.hidden": int(a["hidden"]), "ffn.experts": int(a["experts"]),
               "ffn.balance_loss": float(a["balance_loss"]), "train.dropout": 0.0}
    size = int(a["image_size"])
    shape = (size, size, int(a["channels"]), int(a["classes"]))
    model = vit.VisionTransformer(values, shape, sdpa).double().train()
    with torch.no_grad():
        for parameter, array in golden_arrays(model, file["parameters"]):
            parameter.copy_(torch.from_numpy(array).double())
    return model


def golden_arrays(model, group):
    for name, parameter in model.named_parameters():
        name, expert = switchyard_name(name)
        yield parameter, group[name][:] if expert is None else group[name][expert]


class Twin(unittest.TestCase):
    def test_golden_values(self):
        for name in ("dense", "switch", "random"):
            for sdpa in {False, vit.HAS_SDPA}:
                with self.subTest(name, sdpa=sdpa), h5py.File(ROOT / f"tests/golden/{name}.h5") as file:
                    self.check_golden(file, golden_model(file, sdpa))

    def check_golden(self, file, model):
        images, labels = torch.from_numpy(file["images"][:]), torch.from_numpy(file["labels"][:]).long()
        chosen = int(file.attrs["expert"]) if "expert" in file.attrs else None
        logits, balances = zip(*(model(part, chosen) for part in images.split(int(file.attrs["microbatch"]))))
        loss, balance = functional.cross_entropy(torch.cat(logits), labels), sum(balances) / len(balances)
        (loss + balance).backward()
        np.testing.assert_allclose(torch.cat(logits).detach().numpy(), file["logits"][:], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss.item(), file["loss"][()], rtol=1e-6)
        np.testing.assert_allclose(float(balance), file["balance_loss"][()], rtol=1e-6)
        for parameter, array in golden_arrays(model, file["gradients"]):
            gradient = np.zeros_like(array) if parameter.grad is None else parameter.grad.numpy()
            np.testing.assert_allclose(gradient, array, rtol=1e-5, atol=1e-7)

    def test_routing_by_token_sends_each_to_its_own_expert(self):
        with h5py.File(ROOT / "tests/golden/random.h5") as file:
            model, images = golden_model(file, False), torch.from_numpy(file["images"][:])
            experts = len(model.blocks[0].mixture.experts)
            by_sample = torch.arange(len(images)) % experts
            chosen = by_sample.unsqueeze(1).expand(-1, model.num_patches + 1)
            alone = torch.stack([model(images[i : i + 1], int(by_sample[i]))[0][0] for i in range(len(images))])
            torch.testing.assert_close(model(images, chosen)[0], alone)

    def test_parameter_counts_are_switchyard_s(self):
        for name, count in (("dense", 12_798_490), ("switch", 34_979_002), ("random", 34_964_554)):
            file = ROOT / f"configs/vit-seed-{name}.cfg"
            values = settings.read_settings([file])
            with unittest.mock.patch.object(torch.nn.Linear, "reset_parameters"):  # values do not matter here
                model = vit.VisionTransformer(values, settings.image_shape(values))
            self.assertEqual(sum(parameter.numel() for parameter in model.parameters()), count, name)
            text = subprocess.run([PROGRAM, "inspect", file], check=True, capture_output=True, text=True).stdout
            self.assertIn(f"parameters {count:,} stored", text)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
