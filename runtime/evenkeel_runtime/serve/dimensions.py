"""Do the sizes of a request's inputs fit each other, and what the model was exported for?

Compiled graphs check neither: where a size is 1 torch stretches it to any other, and what is longer than a table is cut
off, so a request that torch's own guards refuse would be answered with numbers. Each size of a model's shapes that is a
number is compared with the request's where the shapes are read; here are the free ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from evenkeel_runtime.models.loaded import Dimension, Place
from evenkeel_runtime.serve.body import BadRequest


def require_dimensions(
    dimensions: Sequence[Dimension], shapes: Sequence[tuple[int, ...]], names: Sequence[str]
) -> None:
    """Raise BadRequest where the inputs, whose `names` are what the request calls them, have other sizes."""
    for dimension in dimensions:
        first, length = dimension.places[0], -1
        for place in dimension.places:
            got = shapes[place.input][place.axis]
            size, rest = divmod(got - place.offset, place.factor)
            if rest or size < dimension.least or (dimension.most is not None and size > dimension.most):
                raise BadRequest(
                    f"{_told(place, shapes, names)}, the model takes {_allowed(place, dimension.least, dimension.most)}"
                )
            if place is first:
                length = size
            elif size != length:
                raise BadRequest(
                    f"{_told(place, shapes, names)}, it has to be {length * place.factor + place.offset}, for "
                    f"{_told(first, shapes, names)}"
                )


def _told(place: Place, shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> str:
    shape = shapes[place.input]
    return f"{names[place.input]}: dimension {place.axis} of {list(shape)} is {shape[place.axis]}"


def _allowed(place: Place, least: int, most: int | None) -> str:
    low = max(0, least * place.factor + place.offset)
    steps = f" in steps of {place.factor}" if place.factor > 1 else ""
    if most is None:
        return f"at least {low}{steps}"
    high = most * place.factor + place.offset
    return f"{low} to {high}{steps}" if low else f"at most {high}{steps}"
