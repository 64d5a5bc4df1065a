-- keep: the next part of a file of an account's; with the last one it is a file, for a time. Nothing is kept of one that
-- does not fit: it is looked at with the first part, and again with the last, since others come meanwhile.
-- Keys: account hash, file hashes, file_text list, account_files zset. TEXT: the part, as it is kept.
-- Replies: {OK, now, expires} | {MORE} (go on with the next part) | {LOST} (what came before is gone: begin again)
--          | {NO_ACCOUNT} | {MANY} (files of this account) | {LARGE, room} (so many bytes are left for it)

local listed, parts = K.account_files(A.account), K.file_text(A.file)

-- Why the whole of it cannot be kept; nil where it can.
local function refusal()
  local kept = 0
  for _, id in ipairs(call('ZRANGE', listed, 0, -1)) do
    kept = kept + tonumber(call('HGET', K.file(id), 'kept_bytes') or 0)
  end
  if call('EXISTS', K.account(A.account)) == 0 then return { 'NO_ACCOUNT' } end
  if call('ZCOUNT', listed, AT, '+inf') >= A.files_max then return { 'MANY' } end
  if kept + A.kept_bytes > A.kept_bytes_max then return { 'LARGE', A.kept_bytes_max - kept } end
  return nil
end

local no = (A.part == 0 or A.last) and refusal()
if no then
  call('UNLINK', parts)
  return no
end
if call('LLEN', parts) ~= A.part then return { 'LOST' } end

call('RPUSH', parts, TEXT)
if not A.last then
  call('PEXPIRE', parts, A.keeping_ttl_ms)
  return { 'MORE' }
end
local expires = NOW + A.ttl_ms
call('PEXPIRE', parts, int(A.ttl_ms))
call('ZREMRANGEBYSCORE', listed, '-inf', '(' .. AT)
call('HSET', K.file(A.file), 'account', A.account, 'name', A.name, 'purpose', A.purpose, 'bytes', int(A.bytes),
  'kept_bytes', int(A.kept_bytes), 'created_ms', AT, 'expires_ms', int(expires))
call('PEXPIRE', K.file(A.file), int(A.ttl_ms))
call('ZADD', listed, int(expires), A.file)
if call('PTTL', listed) < A.ttl_ms then call('PEXPIRE', listed, int(A.ttl_ms)) end
return { 'OK', NOW, expires }
