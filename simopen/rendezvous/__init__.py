"""Meet by a code: from a room's number and two words to a proven stream."""
