"""Evaluation: how good, how new and how useful synthetic images are; it judges folders and knows no makers."""
