-- endpoint: a webhook address of an account: made at its first use, its secret rotated, switched off and on, deleted; and
-- the account's default address. Keys: account hash, endpoints hash, endpoint hash.
-- Replies: {OK, id} | {NEW, id} | {FULL, count} | {DISABLED, id} | {NO_ACCOUNT} | {UNKNOWN}

local OLD_SECRETS_MAX = 3 -- kept beside the new one, newest first: rotating twice takes nobody by surprise

if call('EXISTS', K.account(A.account)) == 0 then return { 'NO_ACCOUNT' } end
if A.op == 'ensure' then
  local id = call('HGET', K.endpoints(A.account), A.url)
  if id then
    if call('HGET', K.endpoint(id), 'disabled_ms') ~= '0' then return { 'DISABLED', id } end
    return { 'OK', id }
  end
  local count = call('HLEN', K.endpoints(A.account))
  if count >= A.endpoints_max then return { 'FULL', count } end
  call('HSET', K.endpoint(A.endpoint), 'account', A.account, 'url', A.url, 'secret', A.secret, 'old_secrets', '',
    'old_until_ms', 0, 'disabled_ms', 0, 'disabled_why', '', 'created_ms', NOW)
  call('HSET', K.endpoints(A.account), A.url, A.endpoint)
  return { 'NEW', A.endpoint }
end
if A.op == 'default' and not A.endpoint then
  call('HDEL', K.account(A.account), 'webhook_url', 'webhook_endpoint')
  return { 'OK', '' }
end
local endpoint = call('HMGET', K.endpoint(A.endpoint), 'account', 'url', 'secret', 'old_secrets', 'old_until_ms')
if endpoint[1] ~= A.account then return { 'UNKNOWN' } end
if A.op == 'default' then
  call('HSET', K.account(A.account), 'webhook_url', A.webhook_url, 'webhook_endpoint', A.endpoint)
elseif A.op == 'rotate' then
  local olds, count = endpoint[3], 1
  if tonumber(endpoint[5]) > NOW then
    for old in string.gmatch(endpoint[4], '%S+') do
      if count < OLD_SECRETS_MAX then olds, count = olds .. ' ' .. old, count + 1 end
    end
  end
  call('HSET', K.endpoint(A.endpoint), 'secret', A.secret, 'old_secrets', olds, 'old_until_ms', int(NOW + A.rotation_ms))
elseif A.op == 'enable' then
  call('HSET', K.endpoint(A.endpoint), 'disabled_ms', 0, 'disabled_why', '')
elseif A.op == 'disable' then
  call('HSET', K.endpoint(A.endpoint), 'disabled_ms', NOW, 'disabled_why', A.why)
else
  call('HDEL', K.endpoints(A.account), endpoint[2])
  call('DEL', K.endpoint(A.endpoint))
  if call('HGET', K.account(A.account), 'webhook_endpoint') == A.endpoint then
    call('HDEL', K.account(A.account), 'webhook_url', 'webhook_endpoint')
  end
end
return { 'OK', A.endpoint }
