"""Segmenting and fine-tuning on another machine, over HTTP: `gitract serve` and its clients."""
