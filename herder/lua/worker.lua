-- worker: register a worker with its model card, or take it off the list (what it still holds lapses or is released).
-- Keys: models set, card and vocab strings, worker hash, workers, model_workers and waiting zsets. TEXT: vocabulary bytes.
-- Reply: OK

if A.op == 'register' then
  call('SADD', K.models(), A.model)
  call('SET', K.card(A.model), A.card)
  if #TEXT > 0 then call('SET', K.vocab(A.model), TEXT) end
  call('HSET', K.worker(A.worker), 'model', A.model, 'stats', A.stats, 'tokens_per_second', 0)
  call('PEXPIRE', K.worker(A.worker), A.gone_ms)
  call('ZADD', K.workers(), NOW, A.worker)
  call('ZADD', K.model_workers(A.model), NOW, A.worker)
else
  local model = call('HGET', K.worker(A.worker), 'model')
  if model then call('ZREM', K.model_workers(model), A.worker) end
  call('ZREM', K.workers(), A.worker)
  call('ZREM', K.waiting(), A.worker)
  call('DEL', K.worker(A.worker))
end
return 'OK'
