# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which weights weight decay is for, as groups for an optimizer of any loop or Trainer."""

from torch import nn

from ..modeling_scan import ScanModule


def decayed_parameter_names(model: nn.Module) -> list[str]:
    """Matrices and convolutions; not the scan's A_log, D and step bias, nor any norm, bias or embedding."""
    names = []
    for module_name, module in model.named_modules():
        prefix = f"{module_name}." if module_name else ""
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            names.append(f"{prefix}weight")
        elif isinstance(module, ScanModule):
            decayed = ("x_proj_weight", "dt_proj_weight", "conv_weight")  # Vim's convolution is no module
            names += [f"{prefix}{name}" for name in decayed if hasattr(module, name)]
    return names


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """
    Two groups of the weights that are trained, for `torch.optim.AdamW(parameter_groups(model, 0.01), lr=5e-5)`.

    Args:
        model: a ReMamber, VMamba or Vim, however it is wrapped.
        weight_decay: of matrices and convolutions; that of all others is 0.
    """
    decayed = set(decayed_parameter_names(model))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for name, parameter in trained if name in decayed], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trained if name not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
