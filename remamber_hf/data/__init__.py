"""Data for training and evaluation: REFER files (`refer`), synthetic scenes (`synthetic`), batches (`collator`)."""
