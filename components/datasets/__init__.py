"""Labelled images: data sets by name, and folders of files."""
