"""HTTP over streams that are expensive to open and precious to keep. Its public names are in `simopen.http`."""
