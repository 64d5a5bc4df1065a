-- account: create an account, with its first credits or none, or suspend or resume it.
-- Keys: account hash, accounts zset; with credits the books and the ledger stream.
-- Replies: OK | EXISTS | TOO_MUCH (all credits together would pass 2^53: no account was made) | NO_ACCOUNT

local exists = call('EXISTS', K.account(A.account)) == 1
if A.op == 'create' then
  if exists then return 'EXISTS' end
  local minted = -tonumber(call('HGET', K.books(), 'mint') or 0)
  if minted + A.credits >= A.amount_limit then return 'TOO_MUCH' end
  call('HSET', K.account(A.account), 'available', 0, 'held', 0, 'suspended', 0, 'created_ms', NOW)
  call('ZADD', K.accounts(), NOW, A.account)
  post('deposit', A.account, 'mint', 'available', A.credits, nil, 'opening credits')
  return 'OK'
end
if not exists then return 'NO_ACCOUNT' end
call('HSET', K.account(A.account), 'suspended', A.op == 'suspend' and 1 or 0)
return 'OK'
