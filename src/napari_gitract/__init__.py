"""napari-gitract: everything that knows napari or Qt, and nothing else.

Importing it costs next to nothing: the manifest, the reader and the writer load only
what they need, and torch is imported by the first job, off the GUI thread.
"""
