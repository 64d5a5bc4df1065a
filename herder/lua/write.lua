-- write: what a delivery says (the text), made ahead of its first attempt since its subject will not be kept for long.
-- Keys: delivery hash, unwritten zset. Reply: how many were written, 0 or 1; it is written once.

return keep_body(A.delivery) and 1 or 0
