"""Runs in nnU-Net's own environment: seconds for a stack by its predictor and default network.

    ENV/bin/python benchmarks/_nnunet_stack.py SLICES ROWS COLUMNS THREADS plain|mirrored

The network is the one that its planner makes for slices of 266 x 266 pixels, with random
weights: time does not depend on them.
"""

import resource
import sys
import time
from types import SimpleNamespace

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

PATCH = (320, 320)  # 266, rounded up to what seven stages can halve
WIDTHS = (32, 64, 128, 256, 512, 512, 512)


def main() -> None:
    slices, rows, columns, threads = (int(number) for number in sys.argv[1:5])
    torch.set_num_threads(threads)
    stages = len(WIDTHS)
    network = PlainConvUNet(
        1, stages, WIDTHS, nn.Conv2d, 3, [1] + [2] * (stages - 1), 2, 4, 2, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    predictor = nnUNetPredictor(
        use_mirroring=sys.argv[5] == "mirrored", device=torch.device("cpu"),
        perform_everything_on_device=False, allow_tqdm=False,
    )  # fmt: skip
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=PATCH)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=4)
    predictor.allowed_mirroring_axes = (0, 1)
    stack = torch.rand(1, slices, rows, columns)
    start = time.perf_counter()
    predictor.predict_sliding_window_return_logits(stack).argmax(0)
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
