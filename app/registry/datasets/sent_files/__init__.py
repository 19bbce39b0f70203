"""Files that people send with images: their captions, `metadata.jsonl`, and the pairing by name."""
