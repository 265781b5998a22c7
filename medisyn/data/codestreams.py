"""Codestreams: the size that compressed pixels declare, read before anything is decoded.

A header of 10 x 10 pixels may carry a JPEG of 60000 x 60000: whoever decodes first and compares then has run out of memory.
"""

STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0 to SOF15 (ITU T.81 table B.1), SOF55 of JPEG-LS
ALONE = {0x01, *range(0xD0, 0xD9)}                                     # markers without a segment


def declared(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None where the bytes are no such thing."""
    if data[:2] == b"\xff\xd8":
        return declared_by_jpeg(data)
    start = data[:4096].find(b"\xff\x4f\xff\x51")  # SOC and SIZ follow each other (ITU T.800 A.5.1); a JP2 box may stand before
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = (int.from_bytes(data[at:at + 4], "big") for at in range(start + 8, start + 24, 4))
    return bottom - top, right - left


def declared_by_jpeg(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of the first frame header of a JPEG (ITU T.81 B.2.2)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
        elif marker in ALONE:
            at += 2
        elif marker in STARTS_OF_FRAME:
            return int.from_bytes(data[at + 5:at + 7], "big"), int.from_bytes(data[at + 7:at + 9], "big")
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2:at + 4], "big"))
    return None
