"""What the operators ask of their inputs and of their fitted constants, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from imc_lite.errors import ImcError

TOKEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_constants(
    what: str, tensors: Mapping[str, tuple[torch.Tensor, str]], limits: Mapping[str, tuple[str, int]]
) -> None:
    """Refuse fitted constants that do not fit together, are too large, or hold a NaN or Inf.

    Args:
        what: the constants' name, for the message.
        tensors: by name, each with its axes, a letter each; axes of one letter must have one size.
        limits: for some letters, what the axis counts and the greatest size it may have.

    Raises:
        ImcError: names the tensor or the size.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, axes) in tensors.items():
        wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        if (
            tensor.dim() != len(axes)
            or 0 in tensor.shape
            or any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, tensor.shape, strict=True))
        ):
            raise ImcError(f"{what}: {name} is {list(tensor.shape)}, wanted [{wanted}]; rebuild the prototypes")
    for axis, (counted, most) in limits.items():
        if not 1 <= sizes[axis] <= most:
            raise ImcError(f"{what}: {counted} {sizes[axis]} is outside 1-{most}; rebuild the prototypes within it")
    # A NaN is its own least and greatest. All in one question to the device: on a GPU each answer is waited for.
    ends = [end.double() for tensor, _ in tensors.values() for end in tensor.aminmax()]
    if not torch.stack(ends).isfinite().all():
        name = next(name for name, (tensor, _) in tensors.items() if not tensor.isfinite().all())
        raise ImcError(f"{what}: {name} holds a NaN or Inf; rebuild the prototypes")


def check_layout(what: str, tensors: Mapping[str, tuple[torch.Tensor, torch.dtype]]) -> None:
    """Refuse constants that are not laid out as the kernels read them: each of its dtype, contiguous, on one device.

    Raises:
        ImcError: names the tensor.
    """
    device = next(iter(tensors.values()))[0].device
    for name, (tensor, dtype) in tensors.items():
        if tensor.dtype != dtype or tensor.device != device or not tensor.is_contiguous():
            raise ImcError(
                f"{what}: {name} is {_short(tensor.dtype)} on {tensor.device}, wanted {_short(dtype)} on {device}, "
                "contiguous; make it with `build`"
            )


def check_input(
    name: str, tensor: torch.Tensor, dims: int, dtypes: tuple[torch.dtype, ...], device: torch.device
) -> None:
    """Refuse an input of another number of dimensions, dtype or device, an empty one, and one that wants gradients.

    Raises:
        ImcError: names the input.
    """
    if tensor.dim() != dims or 0 in tensor.shape:
        raise ImcError(f"{name} is {list(tensor.shape)}, wanted {dims} dimensions, none of them empty")
    if tensor.dtype not in dtypes:
        wanted = ", ".join(map(_short, dtypes))
        raise ImcError(f"{name} is {_short(tensor.dtype)}, wanted {wanted}; convert it, or the fitted constants")
    if tensor.device != device:
        raise ImcError(f"{name} is on {tensor.device} and the fitted constants on {device}; build them for that device")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ImcError(f"{name} requires grad, which the kernels do not carry; call them under torch.no_grad()")


def check_width(what: str, width: int, wanted: int) -> None:
    """Refuse an input that has not as many channels as the constants were fitted on.

    Raises:
        ImcError: gives both numbers.
    """
    if width != wanted:
        raise ImcError(
            f"{what}: the input has {width} channels, the fitted constants {wanted}; build them for this encoder"
        )


def refuse_rows(what: str, bad: torch.Tensor) -> None:
    """Raise for the batch rows in which `bad`, bool [B], is set.

    Raises:
        ImcError: always.
    """
    rows = bad.nonzero().flatten().tolist()
    raise ImcError(f"{what}: NaN or Inf in the tokens of batch row {rows}; check the image")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
