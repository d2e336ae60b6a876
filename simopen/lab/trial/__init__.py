"""`simopen lab`'s work: two hosts punch, and what came of it is explained."""
