"""How do pictures of any size become what an image model takes?

By the folder's `preprocessor_config.json` and the class of transformers that it names, one of a few: it resizes, crops,
rescales and normalises as it did for training. Pictures travel as they are decoded, UINT8 of height, width and red,
green, blue; what the file says is judged as data before the class is built with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.bundle import Bundle
from evenkeel_runtime.models.loaded import BadInput
from evenkeel_runtime.models.pretrained import require_no_code_beside

if TYPE_CHECKING:
    import torch

PROCESSOR = "preprocessor_config.json"
_KINDS = (
    "BeitImageProcessor",
    "BitImageProcessor",
    "ConvNextImageProcessor",
    "DeiTImageProcessor",
    "ViTImageProcessor",
)
_CROPS_BY_ITSELF = "ConvNextImageProcessor"
_SWITCHES = frozenset({"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"})
_SIZES = frozenset({"size", "crop_size"})
_SIDE = 4096
_LEAST_CROP = 0.1
_PIXELS = _SIDE * _SIDE
"""How large a picture may become when its shorter side is given its size, before it is cropped."""


@dataclass(frozen=True, slots=True)
class Prepares:
    """Which class prepares pictures, and the arguments it is built with."""

    kind: str
    arguments: Mapping[str, Any]


class Pictures:
    """Pictures in, the model's `pixel_values` out; `size` is a height and width to try it with."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._shorter = _shorter(processor)
        self.size = _size(processor)

    def values(self, image: torch.Tensor) -> torch.Tensor:
        """Return [N, channels, height, width] of pictures [N, height, width, 3]; raises BadInput."""
        height, width = image.shape[1:3]
        if not height or not width:
            raise BadInput(f"image of {height}×{width} has no pixels")
        if self._shorter**2 * max(height, width) > _PIXELS * min(height, width):
            raise BadInput(
                f"image of {height}×{width} is too long and narrow: with its shorter side made {self._shorter:.0f}, it "
                f"would have more than {_PIXELS} pixels"
            )
        prepared = self._processor(list(image), input_data_format="channels_last", return_tensors="pt")
        values: torch.Tensor = prepared["pixel_values"]
        return values


def described(bundle: Bundle) -> Prepares:
    """Return what the file says, or refuse it. The library is not asked yet."""
    if PROCESSOR not in bundle.files:
        raise refused(
            f"the folder has no {PROCESSOR}; it holds {bundle.named()}: save the image processor beside the model, "
            "AutoImageProcessor.from_pretrained(…).save_pretrained(folder)"
        )
    told = bundle.json(PROCESSOR)
    require_no_code_beside(PROCESSOR, told)
    named = told.get("image_processor_type") or told.get("feature_extractor_type")
    kind = str(named).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    if kind not in _KINDS:
        raise refused(
            f"{PROCESSOR}: image_processor_type is {str(named)[:80]!r}; served are {', '.join(_KINDS)}. Any other: "
            "prepare the pictures in the client and export the model with torch.export.save"
        )
    arguments = {key: told[key] for key in _SWITCHES & told.keys()}
    for key, value in arguments.items():
        if type(value) is not bool:
            raise refused(f"{PROCESSOR}: {key} is {str(value)[:80]}; it has to be true or false")
    arguments |= {key: _sides(key, told[key]) for key in _SIZES & told.keys() if told[key] is not None}
    if (resample := told.get("resample")) is not None:
        if type(resample) is not int or not 0 <= resample <= 5:
            raise refused(f"{PROCESSOR}: resample is {str(resample)[:80]}; it has to be a number up to 5, as Pillow's")
        arguments["resample"] = resample
    for key in ("image_mean", "image_std", "rescale_factor", "crop_pct"):
        if told.get(key) is not None:
            arguments[key] = _numbers(key, told[key])
    return Prepares(kind, arguments)


def built(prepares: Prepares, config: Any) -> Pictures:
    """Return what prepares pictures for a model of this configuration of transformers; raises where they do not fit."""
    import transformers

    if getattr(config, "num_channels", 3) != 3:
        raise refused(f"config.json: num_channels is {config.num_channels}; pictures of red, green and blue have 3")
    processor = getattr(transformers, prepares.kind)(**prepares.arguments)
    crops = bool(processor.do_center_crop) or prepares.kind == _CROPS_BY_ITSELF
    if not crops and (not processor.do_resize or _edge(processor.size)):
        raise refused(f"{PROCESSOR} leaves pictures of different sizes; let it crop, or resize to a height and a width")
    return Pictures(processor)


def _sides(key: str, value: Any) -> dict[str, int] | int:
    sides = value if isinstance(value, dict) else {"": value}
    if not sides or sides.keys() - {"", "height", "width", "shortest_edge"}:
        raise refused(f"{PROCESSOR}: {key} has to be of height and width, or of shortest_edge; it is {str(value)[:80]}")
    for size in sides.values():
        if type(size) is not int or not 0 < size <= _SIDE:
            raise refused(f"{PROCESSOR}: {key} is {str(value)[:80]}; a side has to be a number up to {_SIDE}")
    found: dict[str, int] | int = value
    return found


def _numbers(key: str, value: Any) -> Any:
    wants_three = key.startswith("image_")
    numbers = value if isinstance(value, list) and wants_three else [value]
    is_sound = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    if not is_sound or (isinstance(value, list) and len(numbers) != 3):
        what = "three numbers, or one" if wants_three else "a number"
        raise refused(f"{PROCESSOR}: {key} is {str(value)[:80]}; it has to be {what}")
    least = {"image_std": 1e-6, "crop_pct": _LEAST_CROP}.get(key)
    if least is not None and min(numbers) < least:
        raise refused(f"{PROCESSOR}: {key} is {str(value)[:80]}; it divides, so it has to be {least} and more")
    return value


def _edge(sides: Any) -> int:
    return int(getattr(sides, "shortest_edge", None) or 0)


def _shorter(processor: Any) -> float:
    """Return what the shorter side is made, 0 where both sides are given sizes of their own."""
    return _edge(processor.size) / getattr(processor, "crop_pct", 1.0) if processor.do_resize else 0.0


def _size(processor: Any) -> tuple[int, int]:
    sides = processor.crop_size if processor.do_center_crop else processor.size
    edge = _edge(sides)
    return int(sides.height or edge), int(sides.width or edge)
