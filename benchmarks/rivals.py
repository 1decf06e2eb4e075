# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What ours is compared with: other packages' scans in PyTorch, SS2D in the published layout, Vim's mixer as theirs.

Every scan has the signature of `remamber_hf.selective_scan.selective_scan` without `backend`, B and C with groups.
"""

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from transformers.models.mamba.modeling_mamba import mamba_selective_scan

from remamber_hf import bidirectional_scan, mask_heads_remamber
from remamber_hf.modeling_vim import VimMixer
from remamber_hf.modeling_vmamba import SS2D


MAMBA_SSM_FOLDER = Path(__file__).parent.parent / "build" / "mamba_ssm"  # where `make bench` puts the package

Scan = Callable[..., torch.Tensor]


def plain_recurrence() -> tuple[Scan, str]:
    """
    The plain recurrence in PyTorch, and what it is.

    It is mamba-ssm's `selective_scan_ref`, taken out of its file, for the file itself cannot be imported without
    CUDA; where the package was not fetched, our own function of the same kind.
    """
    paths = sorted(MAMBA_SSM_FOLDER.glob("mamba_ssm/ops/selective_scan_interface.py"))
    if not paths:
        return plain_recurrence_like_mamba_ssm, "ours, written like mamba-ssm's, which is not in build/mamba_ssm"
    from einops import rearrange, repeat

    tree = ast.parse(paths[0].read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", "") == "selective_scan_ref"]
    names = {"torch": torch, "F": F, "rearrange": rearrange, "repeat": repeat}
    exec(compile(tree, str(paths[0]), "exec"), names)
    version = next(MAMBA_SSM_FOLDER.glob("mamba_ssm-*.dist-info")).name.removesuffix(".dist-info")
    return names["selective_scan_ref"], f"selective_scan_ref of {version}"


def plain_recurrence_like_mamba_ssm(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """Decay and drive of all steps at once, then a loop over the steps."""
    delta = F.softplus(delta + delta_bias.unsqueeze(-1)) if delta_softplus else delta + delta_bias.unsqueeze(-1)
    B, C = (tensor.repeat_interleave(u.shape[1] // tensor.shape[1], dim=1).transpose(2, 3) for tensor in (B, C))
    decays = torch.exp(delta.unsqueeze(-1) * A.unsqueeze(1))  # (batch, channels, length, N)
    drives = (delta * u).unsqueeze(-1) * B
    state = torch.zeros_like(drives[:, :, 0])
    outputs = []
    for t in range(u.shape[-1]):
        state = decays[:, :, t] * state + drives[:, :, t]
        outputs.append((state * C[:, :, t]).sum(-1))
    return torch.stack(outputs, dim=-1) + D.unsqueeze(-1) * u


def _for_each_group(scan: Scan) -> Scan:
    """A scan of several groups from one that knows a single group: one call each."""

    def scan_groups(u, delta, A, B, C, D, delta_bias, delta_softplus):
        groups = B.shape[1]
        cut = (tensor.chunk(groups, dim) for tensor, dim in ((u, 1), (delta, 1), (A, 0), (D, 0), (delta_bias, 0)))
        parts = zip(*cut, B.unbind(1), C.unbind(1))
        outputs = [
            scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=delta_softplus)
            for u, delta, A, D, bias, B, C in parts
        ]
        return torch.cat(outputs, dim=1)

    return scan_groups


def _mambapy_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """mambapy's parallel scan between the operations that its Mamba block has around it."""
    from mambapy.pscan import pscan

    u, delta, B, C = (tensor.transpose(1, 2) for tensor in (u, delta, B, C))  # (batch, length, …)
    delta = F.softplus(delta + delta_bias) if delta_softplus else delta + delta_bias
    decays = torch.exp(delta.unsqueeze(-1) * A)
    drives = delta.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
    states = pscan(decays, drives)
    return ((states @ C.unsqueeze(-1)).squeeze(3) + D * u).transpose(1, 2)


def rival_scans() -> dict[str, Scan]:
    """Other people's scans by name; those that are not installed are left out."""
    scans = {"plain recurrence": plain_recurrence()[0], "transformers": _for_each_group(mamba_selective_scan)}
    with contextlib.suppress(ImportError):
        import mambapy.pscan  # noqa: F401

        scans["mambapy"] = _for_each_group(_mambapy_scan)
    return scans


# -------------------------------------------------------------------------------------------------- published layout


def cross_selective_scan_channels_first(
    scan: Scan, x, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D
) -> torch.Tensor:
    """
    SS2D's core as published: x (batch, channels, height, width) is copied once per direction, the copies are
    projected, `scan` takes the directions as four groups, and the outputs are turned back and summed.
    """
    batch, channels, height, width = x.shape
    state_size = A_log.shape[-1]
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    sequences = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1)  # (batch, 4, channels, length)
    projections = torch.einsum("bkdl,kcd->bkcl", sequences, x_proj_weight)
    dt, B, C = projections.split([dt_proj_weight.shape[-1], state_size, state_size], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, dt_proj_weight)
    y = scan(
        sequences.flatten(1, 2),
        delta.flatten(1, 2),
        -torch.exp(A_log),
        B.contiguous(),
        C.contiguous(),
        D,
        delta_bias=dt_proj_bias.flatten(),
        delta_softplus=True,
    ).unflatten(1, (4, channels))
    y = y[:, :2] + y[:, 2:].flip(-1)
    return y[:, 0].unflatten(-1, (height, width)) + y[:, 1].unflatten(-1, (width, height)).transpose(2, 3)


def _pointwise(x: torch.Tensor, linear: torch.nn.Linear) -> torch.Tensor:
    """A linear layer as 1×1 convolution of a map (batch, channels, height, width)."""
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


@contextlib.contextmanager
def published_layout(scan: Scan) -> Iterator[None]:
    """
    Within the context every SS2D works channels-first, with the core above.

    The Conv head's convolutions run after the resize. What else surrounds SS2D (block norms, MLPs, fusion, mask heads)
    stays ours, channels-last: the published code, which is channels-first there too, is rather slower than this.
    """

    def forward(self: SS2D, hidden_states: torch.Tensor) -> torch.Tensor:
        x = _pointwise(hidden_states.permute(0, 3, 1, 2), self.in_proj)
        if self.is_gated:
            x, gate = x.chunk(2, dim=1)
        x = F.silu(F.conv2d(x, self.conv.weight, self.conv.bias, padding=self.conv.padding, groups=x.shape[1]))
        weights = (self.x_proj_weight, self.dt_proj_weight, self.dt_proj_bias, self.A_log, self.D)
        y = cross_selective_scan_channels_first(scan, x.contiguous(), *weights)
        y = self.out_norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.is_gated:
            y = y * F.silu(gate)
        return _pointwise(y, self.out_proj).permute(0, 2, 3, 1)

    as_published = mock.patch.object(mask_heads_remamber, "is_cheaper_before_resize", lambda *args: False)
    with as_published, mock.patch.object(SS2D, "forward", forward):
        yield


# ------------------------------------------------------------------------------------------------------ Vision Mamba


def vim_direction(
    scan: Scan, x, conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D
) -> torch.Tensor:
    """
    One direction of Vim's mixer on x (batch, channels, length): what transformers' `MambaMixer` does without kernels
    between in_proj and the gate, with `scan` for the scan.
    """
    channels, width = conv_weight.shape
    x = F.conv1d(x, conv_weight.unsqueeze(1), conv_bias, padding=width - 1, groups=channels)[..., : x.shape[-1]]
    x = F.silu(x)
    sizes = [dt_proj_weight.shape[-1], A_log.shape[-1], A_log.shape[-1]]
    dt, B, C = F.linear(x.transpose(1, 2), x_proj_weight).transpose(1, 2).split(sizes, dim=1)
    delta = dt_proj_weight @ dt
    A, B, C = -torch.exp(A_log), B.unsqueeze(1), C.unsqueeze(1)
    return scan(x, delta, A, B, C, D, delta_bias=dt_proj_bias, delta_softplus=True)


@contextlib.contextmanager
def vim_with_grouped_scan(scan: Scan) -> Iterator[None]:
    """Within the context a Vim is as it is, but that `scan` takes the place of its one call with two groups."""

    def selective_scan(*args, backend: str, **kwargs) -> torch.Tensor:
        return scan(*args, **kwargs)

    with mock.patch.object(bidirectional_scan, "selective_scan", selective_scan):
        yield


@contextlib.contextmanager
def vim_with_scan(scan: Scan) -> Iterator[None]:
    """
    Within the context every mixer of a Vim runs one direction after the other, as published, each as above.

    Their mean is gated once, as in ours, which is cheaper than the published gate in each. What surrounds the mixer
    stays ours.
    """

    def forward(self: VimMixer, hidden_states: torch.Tensor) -> torch.Tensor:
        x, gate = self.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)  # (batch, inner_size, length)
        weights = zip(
            self.conv_weight.chunk(2),
            self.conv_bias.chunk(2),
            self.x_proj_weight,
            self.dt_proj_weight,
            self.dt_proj_bias,
            self.A_log.chunk(2),
            self.D.chunk(2),
        )
        y, y_backward = (vim_direction(scan, u, *own) for u, own in zip((x, x.flip(-1)), weights))
        y = (y + y_backward.flip(-1)) / 2
        return self.out_proj((y * F.silu(gate)).transpose(1, 2))

    with mock.patch.object(VimMixer, "forward", forward):
        yield
