"""What the nearest router tells of its own accord (NAT-PMP)."""
