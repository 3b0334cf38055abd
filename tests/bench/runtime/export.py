"""Which model is measured? A 784-128-10 perceptron with a free batch dimension: so small that the server shows."""

from __future__ import annotations

import sys

import torch


class Perceptron(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(784, 128)
        self.answer = torch.nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.answer(torch.relu(self.hidden(image)))
        return found


def main() -> None:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    program = torch.export.export(Perceptron().eval(), (torch.zeros(2, 784),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, sys.argv[1])


if __name__ == "__main__":
    main()
