"""Damage as disks do it: one byte is another, a block is zero, the end is missing."""

from hypothesis import strategies as st

#: A kind, a place in [0, 1) of the file, and a byte's difference or a block's length.
DAMAGES = st.tuples(
    st.sampled_from(["flip", "zero", "cut"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 255),
)


def damage(path, how):
    """Damage a file in place; whether its bytes are others now."""
    kind, place, amount = how
    before = path.read_bytes()
    after, start = bytearray(before), int(place * len(before))
    if kind == "flip":
        after[start] ^= amount
    elif kind == "zero":
        after[start : start + amount] = bytes(len(after[start : start + amount]))
    else:
        del after[start:]
    path.write_bytes(after)
    return after != before
