"""How to get the data sets that nothing here downloads."""

from __future__ import annotations

__all__ = ["PA100K", "WIDER", "coco"]

WIDER = (
    "WIDER Attribute comes from the page of 'Human Attribute Recognition by Deep Hierarchical Contexts', "
    "http://mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute: unpack its images (Image/) and its annotations "
    "into one folder, and point at it with data.root=FOLDER"
)

PA100K = (
    "PA-100K comes from the page of 'HydraPlus-Net', https://github.com/xh-liu/HydraPlus-Net: unpack its images "
    "(release_data/) and annotation.mat into one folder, and point at it with data.root=FOLDER"
)


def coco(split: str = "train2014") -> str:
    """For a split of MS-COCO, whose name ends in its year, or one of somebody else's in the same format."""
    year = split[-4:] if split[-4:].isdecimal() else "2014"
    return (
        f"MS-COCO comes from https://cocodataset.org/#download: unpack annotations_trainval{year}.zip, "
        f"train{year}.zip and val{year}.zip into one folder, and point at it with data.root=FOLDER; "
        "for other data in this format set data.annotations and data.images, patterns relative to data.root"
    )
