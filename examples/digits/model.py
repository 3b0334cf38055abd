"""What network reads the digits?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

INK_MEAN, INK_DEVIATION = 0.31, 0.32
"""Of the training images. `Net` centres its input by them, so that whoever asks it sends plain ink from 0 to 1."""


class Net(nn.Module):
    """Two convolutions and two linear layers, from a grey image to the log-probabilities of the ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.dropout1 = nn.Dropout(0.25)
        self.linear1 = nn.Linear(64 * 12 * 12, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.linear2 = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return log-probabilities [batch, 10] of images [batch, 1, 28, 28], where 0 is no ink and 1 is full ink."""
        x = F.relu(self.conv1((image - INK_MEAN) / INK_DEVIATION))  # [batch, 32, 26, 26]
        x = F.relu(self.conv2(x))  # [batch, 64, 24, 24]
        x = self.dropout1(F.max_pool2d(x, 2))  # [batch, 64, 12, 12]
        x = F.relu(self.linear1(x.flatten(1)))  # [batch, 128]
        return F.log_softmax(self.linear2(self.dropout2(x)), dim=1)
