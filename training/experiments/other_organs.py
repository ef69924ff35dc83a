"""Write the MR volumes of CHAOS and AMOS with liver, kidneys and spleen as NIfTI pairs.

For a start that has learned organs of other scanners and patients (`other-organs.yaml`).

    python training/experiments/other_organs.py --data DATA -o DATA/other-organs
"""

import argparse
from pathlib import Path

import nibabel
import numpy as np

FROM_AMOS = {6: 1, 2: 2, 3: 3, 1: 4}  # liver, right kidney, left kidney, spleen, as in CHAOS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    other = options.data / "other"
    for kind in ("images", "labels"):
        (options.output / kind).mkdir(parents=True)

    def write(name: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
        for kind, voxels in (("images", image), ("labels", labels.astype(np.uint8))):
            path = options.output / kind / f"{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, affine), path)

    for file in sorted((other / "chaos_t2spir_u8").glob("*.npz")):
        with np.load(file) as volume:
            write(file.stem, volume["image"], volume["label"], volume["affine"])
    image = nibabel.load(other / "amos_mri_0540" / "amos_0540.nii.gz")
    found = np.asarray(nibabel.load(other / "amos_mri_0540" / "amos_0540_label.nii.gz").dataobj)
    labels = np.zeros(found.shape, np.uint8)
    for theirs, ours in FROM_AMOS.items():
        labels[found == theirs] = ours
    write("amos_0540", np.asarray(image.dataobj).astype(np.float32), labels, image.affine)


if __name__ == "__main__":
    main()
