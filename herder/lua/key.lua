-- key: store an API key under its HMAC, or revoke it.
-- Keys: key hash, account_keys hash, account hash.
-- Replies: OK | NO_ACCOUNT | NO_KEY

if call('EXISTS', K.account(A.account)) == 0 then return 'NO_ACCOUNT' end
if A.op == 'store' then
  call('HSET', K.key(A.hmac), 'key_id', A.key_id, 'account', A.account, 'role', A.role, 'label', A.label,
    'created_ms', NOW, 'revoked', 0)
  call('HSET', K.account_keys(A.account), A.key_id, A.hmac)
  return 'OK'
end
local hmac = call('HGET', K.account_keys(A.account), A.key_id)
if not hmac then return 'NO_KEY' end
call('HSET', K.key(hmac), 'revoked', 1)
return 'OK'
