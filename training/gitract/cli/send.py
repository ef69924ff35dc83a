"""`gitract send`: DICOM files to a node."""

from pathlib import Path
from typing import Annotated

import typer

from gitract.cli._common import Json, out, print_result, progress_bar

__all__ = ["send"]


def send(
    files: Annotated[
        list[Path],
        typer.Argument(help="DICOM files, such as .rtstruct.dcm and .seg.dcm, or folders of them."),
    ],
    to: Annotated[str, typer.Option("--to", help="The node, as ARCHIVE@pacs.hospital.org:104.")],
    calling: Annotated[
        str, typer.Option(help="The AE title that the node knows us by.")
    ] = "GITRACT",
    as_json: Json = False,
) -> None:
    """Send DICOM files to a node (C-STORE), as they are: `convert --deidentify` writes others."""
    with progress_bar(as_json) as report:
        from gitract import dicom_node

        node = dicom_node.DicomNode.parse(to, calling)
        sent = dicom_node.send(files, node, report=report)
    content = {
        "node": str(node),
        "sent": [{"file": str(one.path), "warning": one.warning or None} for one in sent],
    }

    def show() -> None:
        for one in sent:
            if one.warning:
                out.print(f"Note: of {one.path.name} {node} said: {one.warning}", soft_wrap=True)
        out.print(f"{node} took {len(sent)} file{'s' * (len(sent) != 1)}.", soft_wrap=True)

    print_result(as_json, content, show)
