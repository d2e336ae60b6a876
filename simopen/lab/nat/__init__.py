"""NAT models in the terms of RFC 4787 and RFC 5382. Pure: headers and the time in, headers out."""
