"""The protocols of the nearest router: today its own outer address, asked by NAT-PMP."""
