"""Pictures and sentences from a record of packets."""
