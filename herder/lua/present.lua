-- present: the callers of these jobs and batches still wait, as the herder that holds their connections says. Renews the
-- presence of those that have one; what has ended, or was cancelled since nobody renewed it, is not put back.
-- Keys: presence zset, job and batch hashes. Reply: those of A.names that have no presence (any more).

local gone = {}
for _, name in ipairs(A.names) do
  if call('ZSCORE', K.presence(), name) then
    local key = string.sub(name, 1, 6) == 'batch_' and K.batch(name) or K.job(name)
    call('ZADD', K.presence(), int(NOW + call('HGET', key, 'presence_ms')), name)
  else
    gone[#gone + 1] = name
  end
end
return gone
