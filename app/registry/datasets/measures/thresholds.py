"""From which measure on an image is called blurry, a near-duplicate or too elongated.

The reasons are figures of `bench/image_measures.py`, which measures drawn styles and what was done
to them: docs/benchmarks.md.
"""

from __future__ import annotations

MEASURE_VERSION = 1  # images measured by an older version are measured again
BLURRY_BELOW = 0.35  # of the sharpness, 0 to 1
NEAR_DISTANCE = 6  # bits of 64 that differ between the hashes of near-duplicates, at most
# the same for a hash and that of a mirrored image, which is not stored and known only nearly
MIRRORED_DISTANCE = 10
# long side / short side; training crops to 2:1 at most, so a fifth of the image is lost here
ELONGATED_ABOVE = 2.5
