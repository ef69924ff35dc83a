"""How other people's programs read an RT Structure Set; run in an environment of their own.

``python read_rtstruct.py FOLDER`` reads ``FOLDER/organs.rtstruct.dcm`` with the series in
``FOLDER/scan.dcm`` by dcmrtstruct2nii and by rt-utils, and writes the masks of each, bool
``(slice, row, column)`` from foot to head, to ``FOLDER/READER.npz``. Neither can live beside
napari: both want an OpenCV that brings its own Qt.
"""

import sys
from pathlib import Path

import numpy as np
import pydicom

pydicom.read_file = pydicom.dcmread  # a name that dcmrtstruct2nii uses and pydicom 3 dropped


def by_dcmrtstruct2nii(folder: Path) -> dict[str, np.ndarray]:
    import SimpleITK
    from dcmrtstruct2nii import dcmrtstruct2nii

    out = folder / "nii"
    out.mkdir()
    dcmrtstruct2nii(str(folder / "organs.rtstruct.dcm"), str(folder / "scan.dcm"), str(out))
    masks = {}
    for path in out.glob("mask_*.nii.gz"):
        name = path.name.removeprefix("mask_").removesuffix(".nii.gz")
        masks[name] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0
    return masks


def by_rt_utils(folder: Path) -> dict[str, np.ndarray]:
    from rt_utils import RTStructBuilder

    structures = RTStructBuilder.create_from(
        dicom_series_path=str(folder / "scan.dcm"),
        rt_struct_path=str(folder / "organs.rtstruct.dcm"),
    )
    return {
        name: structures.get_roi_mask_by_name(name).transpose(2, 0, 1)
        for name in structures.get_roi_names()
    }


if __name__ == "__main__":
    where = Path(sys.argv[1])
    np.savez(where / "dcmrtstruct2nii.npz", **by_dcmrtstruct2nii(where))
    np.savez(where / "rt_utils.npz", **by_rt_utils(where))
