"""Metrics of referring segmentation; each folder also loads by path with `evaluate.load`."""
