-- prices: set the price list; a change raises its version, and submissions priced at the old one are priced again.
-- Keys: prices hash. Reply: the version.

local seen = call('HMGET', K.prices(), 'set_prompt_fee', 'fee_per_token', 'version')
if tonumber(seen[1]) == A.set_prompt_fee and tonumber(seen[2]) == A.fee_per_token then return tonumber(seen[3]) end
call('HSET', K.prices(), 'set_prompt_fee', int(A.set_prompt_fee), 'fee_per_token', int(A.fee_per_token))
return call('HINCRBY', K.prices(), 'version', 1)
