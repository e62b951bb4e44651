"""Readers of data sets: which layout a folder has, and what its samples are. Nothing is decoded that need not be."""

from draem.data.layouts.reading import read_layout

__all__ = ["read_layout"]
