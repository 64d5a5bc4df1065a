-- callback: take answered callbacks off the callback queue. Keys: callbacks stream. Reply: how many were there.

return call('XDEL', K.callbacks(), unpack(A.entries))
