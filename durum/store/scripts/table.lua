-- Reads the membership table at one instant. KEYS: membership table.
-- ARGV: genesis mark, '1' if what is read must be on replicas: a write, so that WAIT waits for all before it.
-- Returns {field, value, ...} and {seconds, microseconds}, or -1 not of this genesis.
if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end
if ARGV[2] == '1' then redis.pcall('HSET', KEYS[1], 'seen', 1) end
return {redis.call('HGETALL', KEYS[1]), redis.call('TIME')}
