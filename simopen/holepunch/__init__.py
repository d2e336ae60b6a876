"""The punch: from a peer and an instant to one stream, or to the reason why there is none."""
