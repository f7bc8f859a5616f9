-- Writes a partition's first owner record, unless it has one.
-- KEYS: owner record. ARGV: genesis mark. Returns 1 if it was written, else 0.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'm', ARGV[1], 's', '', 'e', 0, 't', '', 'c', 0)
return 1
