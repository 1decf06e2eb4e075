"""Referring IoU: `scores` holds the definitions, `referring_iou` the `evaluate` module around them."""
