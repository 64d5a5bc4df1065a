"""One model, many sequences: leases jobs from the broker and answers them."""
