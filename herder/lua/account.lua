-- account: create an account, or suspend or resume it.
-- Keys: account hash, accounts zset.
-- Replies: OK | EXISTS | NO_ACCOUNT

local exists = call('EXISTS', K.account(A.account)) == 1
if A.op == 'create' then
  if exists then return 'EXISTS' end
  call('HSET', K.account(A.account), 'available', 0, 'held', 0, 'suspended', 0, 'created_ms', NOW)
  call('ZADD', K.accounts(), NOW, A.account)
  return 'OK'
end
if not exists then return 'NO_ACCOUNT' end
call('HSET', K.account(A.account), 'suspended', A.op == 'suspend' and 1 or 0)
return 'OK'
