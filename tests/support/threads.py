"""One thread for small tensors: threads that wait for one another cost most of the time."""

from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def use_one_thread():
    """PyTorch and the libraries under NumPy, one thread each, until the block ends."""
    import torch  # where a test needs it; many a test needs none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)
