"""npe2 sample data: an abdomen made by code, with its true contours."""

from napari_gitract.layers import LayerTuple, scan_to_layer, segmentation_to_layer

__all__ = ["abdomen_sample"]


def abdomen_sample() -> list[LayerTuple]:
    """A phantom scan and its organs: something to try everything on."""
    from gitract.phantom import abdomen

    scan, truth = abdomen()
    return [scan_to_layer(scan), segmentation_to_layer(truth, name=f"{scan.name} · reference")]
