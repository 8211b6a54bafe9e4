"""The promise: accounting, subsampling, clipping, noise, and plan, ledger and certificate above them."""
