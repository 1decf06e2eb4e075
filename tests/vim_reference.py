# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vim by its formulas, on tensors under their published names: step by step, one direction at a time, in float64."""

import torch
import torch.nn.functional as F


def published_state_dict(config, seed=0):
    """Random tensors of a Vim under their published names, of a size that makes every part of it count."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=0.3):
        return scale * torch.randn(*shape, generator=generator)

    size, inner, states = config.hidden_size, round(config.expand * config.hidden_size), config.state_size
    rank = config.time_step_rank or -(-size // 16)
    tokens = {"both": ["cls_token_head", "cls_token_tail"], "none": []}.get(config.class_token, ["cls_token"])
    rows, columns = config.grid_size
    tensors = {name: normal(1, 1, size) for name in tokens}
    tensors["pos_embed"] = normal(1, rows * columns + len(tokens), size)
    tensors["patch_embed.proj.weight"] = normal(size, config.num_channels, *[config.patch_size] * 2, scale=0.03)
    tensors["patch_embed.proj.bias"] = normal(size)
    tensors["head.weight"], tensors["head.bias"] = normal(config.num_labels, size), normal(config.num_labels)
    for layer in range(config.num_hidden_layers):
        mixer = f"layers.{layer}.mixer"
        tensors[f"{mixer}.in_proj.weight"] = normal(2 * inner, size)
        tensors[f"{mixer}.out_proj.weight"] = normal(size, inner)
        for way, log in (("", "A_log"), ("_b", "A_b_log")):
            tensors[f"{mixer}.{log}"] = torch.arange(1.0, states + 1).log() + normal(inner, states)
            tensors[f"{mixer}.D{way}"] = 1 + normal(inner)
            tensors[f"{mixer}.conv1d{way}.weight"] = normal(inner, 1, config.conv_kernel_size)
            tensors[f"{mixer}.conv1d{way}.bias"] = normal(inner)
            tensors[f"{mixer}.x_proj{way}.weight"] = normal(rank + 2 * states, inner)
            tensors[f"{mixer}.dt_proj{way}.weight"] = normal(inner, rank)
            tensors[f"{mixer}.dt_proj{way}.bias"] = normal(inner) - 2
        tensors[f"layers.{layer}.norm.weight"] = 1 + normal(size)
    return tensors | {"norm_f.weight": 1 + normal(size)}


def reference_logits(tensors, config, pixel_values, positions=None):
    """
    Logits by VIM's equations (arXiv 2401.09417, algorithm 1) in the arrangement of the published code.

    Args:
        positions: of patches and class tokens, in the sequence's order, where they are not those in `tensors`.
    """
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    stride = config.stride or config.patch_size
    patches = F.conv2d(
        pixel_values.double(), tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=stride
    )
    rows = list(patches.flatten(2).unbind(-1))  # of (batch, channels), in reading order
    count = len(rows)
    places = {"middle": [count // 2], "first": [0], "both": [0, count + 1], "none": []}[config.class_token]
    names = ["cls_token_head", "cls_token_tail"] if config.class_token == "both" else ["cls_token"]
    for place, name in zip(places, names):
        rows.insert(place, tensors[name][0].expand(len(pixel_values), -1))
    stream = torch.stack(rows, dim=1) + (tensors["pos_embed"] if positions is None else positions.double())
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}."
        mixer = {name.removeprefix(f"{prefix}mixer."): value for name, value in tensors.items() if prefix in name}
        stream = stream + mix(mixer, rms_norm(stream, tensors[f"{prefix}norm.weight"], config.layer_norm_eps))
    normed = rms_norm(stream, tensors["norm_f.weight"], config.layer_norm_eps)
    pooled = normed[:, places].mean(1) if places else normed.mean(1)
    return pooled @ tensors["head.weight"].T + tensors["head.bias"]


def rms_norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def mix(mixer, x):
    """(batch, length, channels) in and out."""
    u, z = (x @ mixer["in_proj.weight"].T).chunk(2, dim=-1)
    forward = scan_one_way(u, mixer, "", "A_log")
    backward = scan_one_way(u.flip(1), mixer, "_b", "A_b_log").flip(1)
    return ((forward + backward) / 2 * z * torch.sigmoid(z)) @ mixer["out_proj.weight"].T


def scan_one_way(u, mixer, way, log):
    weight = mixer[f"conv1d{way}.weight"][:, 0]  # (channels, width)
    width, states = weight.shape[1], mixer[log].shape[1]
    rank = mixer[f"dt_proj{way}.weight"].shape[1]
    A = -mixer[log].exp()
    state = u.new_zeros(*u.shape[::2], states)
    outputs = []
    for t in range(u.shape[1]):
        seen = [u[:, t - back] * weight[:, width - 1 - back] for back in range(width) if t - back >= 0]
        x = sum(seen) + mixer[f"conv1d{way}.bias"]
        x = x * torch.sigmoid(x)
        dt, B, C = (x @ mixer[f"x_proj{way}.weight"].T).split([rank, states, states], dim=-1)
        delta = (1 + (dt @ mixer[f"dt_proj{way}.weight"].T + mixer[f"dt_proj{way}.bias"]).exp()).log()
        state = (delta[..., None] * A).exp() * state + delta[..., None] * B[:, None] * x[..., None]
        outputs.append((state * C[:, None]).sum(-1) + mixer[f"D{way}"] * x)
    return torch.stack(outputs, dim=1)
