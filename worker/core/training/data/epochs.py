"""The length of an epoch: how many steps use each training image once. Needs no torch."""

MAX_REPEATS = 1_000  # of an image, with those of its dataset


def held_out_count(share: float, images: int) -> int:
    """The number of images that this validation split holds out; at least one unless it is 0."""
    return max(1, round(share * images)) if share else 0


def steps_per_epoch(
    uses: float, *, images_per_step: int, has_regularization: bool = False
) -> float:
    """Steps until every image was used as often as it repeats, on average.

    `uses`: the repeats of all images that are trained on, added up; regularization images do not
    count. With them, half of the batches are theirs (`batches.pools`), so an epoch is twice as
    long. Buckets change nothing: they are drawn in proportion to their images.
    """
    return uses * (2 if has_regularization else 1) / images_per_step
