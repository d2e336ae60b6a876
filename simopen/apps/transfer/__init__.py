"""Files, folders and texts over a stream, for `simopen send` and `simopen receive`."""
