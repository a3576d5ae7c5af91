"""Scales pictures down, slowly enough to be a job."""


def shrink(pixels: bytes, width: int, height: int, factor: int) -> bytes:
    """Return a picture with a pixel for each square of factor x factor: the mean of its pixels."""
    if len(pixels) != width * height:
        raise ValueError(f"{width} x {height} pixels are {width * height} bytes, not {len(pixels)}")
    small = bytearray()
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            rows = range(top, min(top + factor, height))
            square = b"".join(pixels[row * width + left : row * width + min(left + factor, width)] for row in rows)
            small.append(sum(square) // len(square))
    return bytes(small)
