-- Writes genesis, unless there is one. It counts only once `ready` says that all owner records exist.
-- KEYS: membership table. ARGV: genesis mark, partitions, ring.
-- Returns what is in effect: {mark, partitions, ring, ready}.
if redis.call('HEXISTS', KEYS[1], 'm') == 0 then
  redis.call('HSET', KEYS[1], 'm', ARGV[1], 'p', ARGV[2], 'r', ARGV[3], 'v', 0)
end
return redis.call('HMGET', KEYS[1], 'm', 'p', 'r', 'ready')
