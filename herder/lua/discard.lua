-- discard: a file of an account's, before its time is over.
-- Keys: file hash, file_text list, account_files zset.
-- Replies: OK | UNKNOWN

if call('HGET', K.file(A.file), 'account') ~= A.account then return 'UNKNOWN' end
call('DEL', K.file(A.file))
call('UNLINK', K.file_text(A.file))
call('ZREM', K.account_files(A.account), A.file)
return 'OK'
