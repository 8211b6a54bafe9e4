"""Image sets: the forms a folder may have, bounded decoding, and who may see the pixels."""
