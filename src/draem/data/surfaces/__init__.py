"""Rendered surfaces with defects: woven cloth, a brushed metal plate, a printed label. NumPy and OpenCV only."""
