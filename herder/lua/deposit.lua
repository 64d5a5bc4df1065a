-- deposit: credits from the mint into an account, once for each deposit id; or an adjustment, which may be negative.
-- Keys: account hash, books, ledger stream, deposits hash.
-- Replies: {OK} | {REPEAT} | {CONFLICT, amount} (the id was used with another amount) | {NO_ACCOUNT}
--          | {POOR, available} (an adjustment below zero) | {TOO_MUCH} (a balance would pass 2^53)

local available = tonumber(call('HGET', K.account(A.account), 'available'))
if not available then return { 'NO_ACCOUNT' } end
if A.deposit_id then
  local seen = call('HGET', K.deposits(A.account), A.deposit_id)
  if seen then
    if tonumber(seen) == A.amount then return { 'REPEAT' } end
    return { 'CONFLICT', seen }
  end
end
if available + A.amount < 0 then return { 'POOR', available } end
local minted = -tonumber(call('HGET', K.books(), 'mint') or 0)
if minted + A.amount >= A.amount_limit then return { 'TOO_MUCH' } end

if A.deposit_id then call('HSET', K.deposits(A.account), A.deposit_id, int(A.amount)) end
if A.amount >= 0 then
  post(A.kind, A.account, 'mint', 'available', A.amount, nil, A.memo)
else
  post(A.kind, A.account, 'available', 'mint', -A.amount, nil, A.memo)
end
return { 'OK' }
