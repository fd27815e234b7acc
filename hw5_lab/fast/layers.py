"""Faster layers for a network, and Adam in one kernel. The network's parameters, hooks, state_dict and forward stay.

A nearest upsampling by 2 and the 3x3 convolution after it become one transposed convolution of the small image: 4
products for a pixel instead of 9. Images lie in memory with their channels last. On a GPU such layers take longer.
"""

import torch
import torch.nn.functional as F
from torch import nn


def speed_up(*networks):
    """Replace layers of these networks by faster ones, in place."""
    for network in networks:
        network.to(memory_format=torch.channels_last)
        for module in network.modules():
            if type(module) is nn.Upsample and module.mode == "nearest" and module.scale_factor == 2:
                module.__class__ = Upsample
            elif type(module) is nn.Conv2d and is_plain(module):
                module.__class__ = Conv2d


def is_plain(conv):
    """Whether a convolution is 3x3 with padding 1, and nothing else."""
    sizes = conv.kernel_size, conv.padding, conv.stride, conv.dilation, conv.groups, conv.padding_mode
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def fuse(*optimizers):
    """Let Adam update all its weights in one kernel, where PyTorch has one for the device."""
    for optimizer in optimizers:
        for group in optimizer.param_groups if type(optimizer) is torch.optim.Adam else ():
            group["fused"] = all(weight.device.type in ("cpu", "cuda") for weight in group["params"])


class Upsample(nn.Upsample):
    """The same upsampling. Its output remembers the small image, for a convolution that comes next."""

    def forward(self, x):
        if x.dim() != 4 or torch.is_inference_mode_enabled() or x.is_inference():
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        large = super().forward(x)
        # Any operation on `large` makes a new tensor, which has no such attribute, or a new version of it
        large.small = x, x._version, large._version
        return large


class Conv2d(nn.Conv2d):
    """The same convolution. Right after an upsampling it is computed from the small image."""

    def forward(self, x):
        small, version, large_version = getattr(x, "small", (None, 0, 0))
        if small is None or (small._version, x._version) != (version, large_version):
            return super().forward(x)
        # At most 2x2 of the nine pixels under the kernel differ: so the 3x3 kernel becomes a 4x4 one, of sums
        sums = self.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        weight = (sums @ self.weight @ sums.T).transpose(0, 1)  # [in,out,4,4]
        return F.conv_transpose2d(small, weight, self.bias, stride=2, padding=1)
