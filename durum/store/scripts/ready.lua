-- Says that all owner records of a genesis have been written.
-- KEYS: membership table. ARGV: genesis mark. Returns 1, or -1 where the genesis is another.
if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end
redis.call('HSET', KEYS[1], 'ready', 1)
return 1
