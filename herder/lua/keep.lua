-- keep: a file of an account's, for a time. Nothing is kept of one that does not fit.
-- Keys: account hash, file hashes, file_text string, account_files zset. ARGV[4]: what is in it, as it is kept.
-- Replies: {OK, now, expires} | {NO_ACCOUNT} | {MANY} (files of this account) | {LARGE, room} (so many bytes are left for it)

local listed = K.account_files(A.account)
local kept = 0
local ids = call('ZRANGE', listed, 0, -1)
for _, id in ipairs(ids) do
  kept = kept + tonumber(call('HGET', K.file(id), 'kept_bytes') or 0)
end
local live = call('ZCOUNT', listed, int(NOW), '+inf')
if call('EXISTS', K.account(A.account)) == 0 then return { 'NO_ACCOUNT' } end
if live >= A.files_max then return { 'MANY' } end
if kept + #ARGV[4] > A.kept_bytes_max then return { 'LARGE', A.kept_bytes_max - kept } end

local expires = NOW + A.ttl_ms
call('ZREMRANGEBYSCORE', listed, '-inf', '(' .. AT)
call('HSET', K.file(A.file), 'account', A.account, 'name', A.name, 'purpose', A.purpose, 'bytes', int(A.bytes),
  'kept_bytes', #ARGV[4], 'created_ms', AT, 'expires_ms', int(expires))
call('PEXPIRE', K.file(A.file), int(A.ttl_ms))
call('SET', K.file_text(A.file), ARGV[4], 'PX', int(A.ttl_ms))
call('ZADD', listed, int(expires), A.file)
if call('PTTL', listed) < A.ttl_ms then call('PEXPIRE', listed, int(A.ttl_ms)) end
return { 'OK', NOW, expires }
