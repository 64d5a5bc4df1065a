-- waiting: a worker that was started without a model says that it waits for one, and is told which as soon as an admin has
-- chosen; or that it leaves, or that the model cannot be served, and why: then, should it come back, it waits for another.
-- Keys: waiting zset, appointed hash.
-- Reply: the model, which it has now taken, or '' while there is none

local key = K.appointed(A.worker)
if A.op == 'wait' then
  local given = call('HMGET', key, 'model', 'why')
  if not given[1] or given[2] then
    call('ZADD', K.waiting(), AT, A.worker)
    return ''
  end
  call('ZREM', K.waiting(), A.worker)
  return given[1]
end
call('ZREM', K.waiting(), A.worker)
if A.op == 'failed' and call('EXISTS', key) == 1 then call('HSET', key, 'why', TEXT) end
return ''
