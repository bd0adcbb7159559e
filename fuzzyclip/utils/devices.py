"""Names of devices that compute, checked before anything is loaded there."""

#: What people call a device of PyTorch's.
OTHER_NAMES = {"gpu": "cuda", "nvidia": "cuda", "apple": "mps", "metal": "mps"}
PLACE = "auto takes the best that is there, cpu works everywhere"


def check_device(name: str) -> None:
    """Refuse the name of a device that is not there.

    Args:
        name: `auto`, or torch's own name: cpu, cuda, cuda:1, mps, ...

    Raises:
        ValueError: no device is called so, or PyTorch finds none; says which there are.
    """
    if name == "auto":
        return
    import torch

    if other := OTHER_NAMES.get(name.lower()):
        raise ValueError(f"device {name}: PyTorch calls it {other}; {PLACE}")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name}: give auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: PyTorch finds no CUDA GPU (fuzzyclip doctor); {PLACE}")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {name}: the last of {count} is cuda:{count - 1}; {PLACE}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name}: PyTorch finds no GPU of Apple's here; {PLACE}")
    try:
        torch.ones(1, device=device).cpu()
    except Exception as error:  # backends that PyTorch was built without raise what they like
        raise ValueError(f"device {name}: PyTorch can not compute there; {PLACE}") from error
