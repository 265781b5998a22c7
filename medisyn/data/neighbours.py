"""Neighbours: which of a million 64-bit codes differ in a few bits only, none of them missed.

Codes that differ in at most r bits are equal under at least one of a few masks, whichever bits they are: so it is enough to
compare those that are equal under a mask. The masks are those of covering hashing (Pagh, "Locality-sensitive hashing
without false negatives", SODA 2016, section 3), the thresholds of the parts those of the general pigeonhole
principle (Qin et al., "GPH: similarity search in Hamming space", ICDE 2018). For 8 bits: 46 masks of 16 or 17 bits,
under which 0.04 % of random pairs meet.
"""

from collections.abc import Callable, Iterator

import numpy as np

BITS = 64
MOST_MASKED = 4     # bits of difference that one part's masks provide for: 2^5 - 1 masks
BLOCK = 1 << 20     # pairs compared at a time: what they need stays below 100 MB
CROWD = 512         # codes that are equal under a mask; more are compared group by group
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth 6.4): equal stays equal, unlike is spread
Roots = Callable[[np.ndarray], np.ndarray]


def masks(distance: int) -> list[int]:
    """Masks of 64 bits: at least one leaves out all the bits in which two codes differ, if those are at most `distance`.

    The bits fall into parts, part k with a threshold t_k, so that the t_k + 1 exceed the distance together: in one part at
    most t_k bits differ. There, bit i stands for a vector a_i of t_k + 1 bits; a mask for each vector v but 0 holds the
    bits with a_i . v odd. At most t_k vectors do not span t_k + 1 dimensions, so some v is orthogonal to all a_i that
    differ. From about 16 bits on masks are so narrow that little is left out.
    """
    if not 0 <= distance < BITS:
        raise ValueError(f"the distance of 64-bit codes should be 0 to 63 bits; found {distance}")
    parts = next(n for n in range(1, BITS + 1) if n * (MOST_MASKED + 1) > distance)
    found = []
    for part in range(parts):
        threshold = (distance + 1 + part) // parts - 1
        bits = range(part, BITS, parts)
        vectors = {bit: 1 + place % ((2 << threshold) - 1) for place, bit in enumerate(bits)}
        found += [sum(1 << bit for bit, vector in vectors.items() if (vector & v).bit_count() % 2)
                  for v in range(1, 2 << threshold)]
    return found


def near(left: np.ndarray, right: np.ndarray, distance: int, roots: Roots | None = None
         ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(how, i, j): indices i < j of codes left[i] and right[how, j] that differ in at most `distance` bits, each once for a how.

    left   uint64 (N,)
    right  uint64 (H, N)
    roots  indices -> the group of each, asked anew after each yield: where hundreds of codes meet, those of one group are
           passed over, so that a thousand copies of a picture are not compared a million times; None passes over none
    """
    size = max(1, (len(left) - 1).bit_length())
    place = np.uint64((1 << size) - 1)
    held = masks(distance)
    for number, mask in enumerate(held):
        ours = keys(left, mask, size)
        i = ours & place
        codes = left[i]
        for how in range(len(right)):
            theirs = keys(right[how], mask, size)
            first = np.searchsorted(ours, theirs & ~place)
            count = np.searchsorted(ours, theirs) - first  # of equal ones that lie before
            j = theirs & place
            few = (count > 0) & (count <= CROWD)
            for a, b in meetings(codes, right[how][j[few]], first[few], count[few], distance):
                a, b = i[a].astype(np.intp), j[few][b].astype(np.intp)
                new = unmet(left[a] ^ right[how][b], held[:number])
                if new.any():
                    yield how, a[new], b[new]
            many = count > CROWD
            start, at = np.unique(first[many], return_index=True)
            for members, crowd in zip(start, np.split(np.flatnonzero(many), at[1:]), strict=True) if len(start) else ():
                here = i[members:members + count[crowd].max()].astype(np.intp)
                for a, b in crowded(here, j[crowd].astype(np.intp), left, right[how], distance, roots):
                    new = unmet(left[a] ^ right[how][b], held[:number])
                    if new.any():
                        yield how, a[new], b[new]


def keys(codes: np.ndarray, mask: int, size: int) -> np.ndarray:
    """Ascending keys: a hash of a code under a mask, and in the low `size` bits the index of the code."""
    found = codes & np.uint64(mask)
    found *= SPREAD
    found >>= np.uint64(size)
    found <<= np.uint64(size)
    found |= np.arange(len(codes), dtype=np.uint64)
    found.sort()
    return found


def unmet(differing: np.ndarray, earlier: list[int]) -> np.ndarray:
    """Which pairs did not meet under a mask before, by the bits in which they differ."""
    new = np.ones(len(differing), bool)
    for mask in earlier:
        new &= (differing & np.uint64(mask)) != 0
    return new


def meetings(ours: np.ndarray, theirs: np.ndarray, first: np.ndarray, count: np.ndarray, distance: int
             ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(a, b) with ours[a] and theirs[b] at most `distance` apart, a among the count[b] from first[b]."""
    ends = np.cumsum(count)
    start = 0
    while start < len(theirs):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK, "right")))
        here = count[start:stop]
        b = np.repeat(np.arange(start, stop), here)
        a = np.arange(done, ends[stop - 1]) - np.repeat(ends[start:stop] - here - first[start:stop], here)
        close = np.flatnonzero(np.bitwise_count(ours[a] ^ np.repeat(theirs[start:stop], here)) <= distance)
        if len(close):
            yield a[close], b[close]
        start = stop


def crowded(members: np.ndarray, needles: np.ndarray, left: np.ndarray, right: np.ndarray, distance: int, roots: Roots | None
            ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `near`, of the indices `members` into left with the `needles` into right, those that share a group left out."""
    while len(needles):
        names, own = (members, needles) if roots is None else (roots(members), roots(needles))
        order = np.argsort(names, kind="stable")
        members, names = members[order], names[order]
        begin, end = np.searchsorted(names, own), np.searchsorted(names, own, "right")
        left_over = end - begin < len(members)
        needles, begin, end = needles[left_over], begin[left_over], end[left_over]
        some = max(1, BLOCK // len(members))
        close = np.bitwise_count(left[members][None] ^ right[needles[:some], None]) <= distance
        place = np.arange(len(members))[None]
        close &= (members[None] < needles[:some, None]) & ((place < begin[:some, None]) | (place >= end[:some, None]))
        b, a = np.nonzero(close)
        if len(b):
            yield members[a], needles[:some][b]
        needles = needles[some:]
