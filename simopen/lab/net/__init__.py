"""The small internet between the hosts: packets, their ways, and the record of them."""
