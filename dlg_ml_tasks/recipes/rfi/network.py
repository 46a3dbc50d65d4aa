"""The flagging network: a small U-Net over whitened visibilities that gives each sample's log-odds of being interference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Module):
    """3 x 3 convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, T, F) to (N, channels_out, T, F)."""
        if self.training:
            return torch.relu_(self.norm(self.conv(x)))
        # In inference the normalisation is a constant factor per channel: folded into the kernel, it costs no pass over the data.
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # noqa: S101 - absent only with track_running_stats=False
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        kernel = self.conv.weight * scale[:, None, None, None]
        return torch.relu_(F.conv2d(x, kernel, self.norm.bias - mean * scale, padding=1))


def _pair(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(Convolution(channels_in, channels_out), Convolution(channels_out, channels_out))


CHANNELS = 6
STEADY_LIMIT = 4.0
BAND = 16


def visible_channels(whitened: Tensor) -> Tensor:
    """What the first convolution sees: (N, 2, T, F) real and imaginary parts in units of sigma to (N, 6, T, F).

    1. log amplitude of the visibility;
    2. log amplitude of its second difference in time: without the smooth sky, in which interference hides;
    3. the same in frequency;
    4. (2) averaged over all channels: weak impulses, which stand out in no single sample;
    5. (2) averaged over some 48 channels: weak digital television;
    6. log amplitude of the second difference in frequency averaged over all times, as complex numbers: weak transmitters on the
       ground, whose phase stays while the sky's turns. Clipped first, so that a short strong signal is not taken for a steady one.
    """
    whitened = whitened.float()
    in_time = _log_amplitude(_second_difference(whitened, 2))
    difference = _second_difference(whitened, 3)
    steady = difference.clamp(-STEADY_LIMIT, STEADY_LIMIT).mean(2, keepdim=True) * math.sqrt(whitened.shape[2])
    channels = [
        _log_amplitude(whitened),
        in_time,
        _log_amplitude(difference),
        in_time.mean(3, keepdim=True).expand_as(in_time),
        _band_average(in_time),
        _log_amplitude(steady).expand_as(in_time),
    ]
    return torch.cat(channels, dim=1)


def _log_amplitude(parts: Tensor) -> Tensor:
    return 0.5 * torch.log(parts[:, :1].square() + parts[:, 1:].square() + 0.01) - 1.0


def _band_average(x: Tensor) -> Tensor:
    """Mean over the band of BAND channels that a sample lies in and the two bands beside it."""
    bands = F.pad(F.avg_pool2d(x, (1, BAND)), (1, 1, 0, 0), mode="replicate")
    return F.avg_pool2d(bands, (1, 3), stride=1).repeat_interleave(BAND, dim=3)


def _second_difference(parts: Tensor, dim: int) -> Tensor:
    """Each sample minus the mean of its two neighbours along `dim`; at the ends, half the difference from the only one."""
    halves = 0.5 * parts.diff(dim=dim)
    edge = torch.zeros_like(parts.narrow(dim, 0, 1))
    return torch.cat([edge, halves], dim=dim) - torch.cat([halves, edge], dim=dim)


class UNet(nn.Module):
    """Three halvings of the resolution, 8 to 64 channels, 113 329 parameters.

    Takes whitened visibilities (N, 2, T, F), T a multiple of 8 and F of 16, float16 or float32; returns log-odds (N, T, F),
    float32, or bfloat16 where the caller has convolutions run in it. Callers convert: a conversion in here would be exported
    together with an assertion that its argument is float32, and the exported network would refuse to run in bfloat16.
    """

    def __init__(self, base: int = 8, depth: int = 3) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(i, o) for i, o in zip([CHANNELS, *widths], widths, strict=False))
        self.reduce = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in reversed(widths[:-1]))
        self.up = nn.ModuleList(_pair(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, whitened: Tensor) -> Tensor:
        """Log-odds of interference."""
        # Channels-last is 1.4 times faster on CPUs; the kernels follow the data's layout.
        x = visible_channels(whitened).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, pair in enumerate(self.down):
            x = pair(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for reduce, pair in zip(self.reduce, self.up, strict=True):
            x = F.interpolate(reduce(x), scale_factor=2.0, mode="nearest")
            x = pair(torch.cat([skips.pop(), x], dim=1))
        logits: Tensor = self.head(x)[:, 0]
        return logits
