"""What a run learns from: the table of rows, its sources, safe decoding, splits, samplers."""
